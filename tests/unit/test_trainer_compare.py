"""pmeta-train compare: trains, measures, goes on where it was interrupted, and asks nothing twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pmeta.codegen.errors import PmetaError
from pmeta.trainer.cli import app
from tests.unit.test_trainer_cli import one_line_of, pmeta_train

pytestmark = pytest.mark.unit
pytest.importorskip("torch")
pytest.importorskip("matplotlib")

SMALL = """
[task]
ways = 3
shots = {shots}
queries = 1
[network]
width = 4
[method]
name = "{method}"
steps = 2
[training]
iterations = {iterations}
tasks_per_batch = 1
validate_every = 1000
validation_tasks = 2
"""
FILES = ["figure.png", "results.json", "table.csv", "table.md"]


def write_config(path: Path, method: str, iterations: int = 2, shots: int = 1) -> Path:
    path.write_text(SMALL.format(method=method, iterations=iterations, shots=shots))
    return path


def arguments(folder: Path, *configs: Path) -> list[str | Path]:
    options = ["--tasks", "5", "--queries", "2", "--cross", "none", "--device", "cpu", "--jobs", "2"]
    return ["compare", *configs, "--runs", folder / "runs", "--out", folder / "out", *options]


def test_trains_measures_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [write_config(tmp_path / f"{method}.toml", method) for method in ("anil", "p-meta-3.2+3.3")]
    done = pmeta_train(*arguments(tmp_path, *configs))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert done.stdout == (tmp_path / "out" / "table.md").read_text()
    assert "**3-way 1-shot, trained on icons**" in done.stdout and "| p-Meta (3.2+3.3) |" in done.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["method"] for row in rows] == ["anil", "p-meta-3.2+3.3"]
    assert rows[0]["memory_ratio"] == rows[0]["best_memory_ratio"]
    assert float(rows[1]["memory_bytes"]) <= float(rows[1]["memory_bound_bytes"])

    # The same figures as `pmeta-train evaluate`.
    model = tmp_path / "runs" / "p-meta-3.2+3.3" / "model.onnx"
    alone = json.loads(pmeta_train("evaluate", model, "--tasks", "5", "--queries", "2", "--json").stdout)
    assert (float(rows[1]["in_domain_accuracy"]), float(rows[1]["in_domain_interval"])) == (
        alone["after"], alone["after_interval"],
    )  # fmt: skip

    # Asked again, and about the models themselves, nothing is computed.
    monkeypatch.setattr("pmeta.trainer.comparison.running._start", lambda _: pytest.fail("a process was started"))
    for given in (configs, [model]):
        again = CliRunner().invoke(app, [*map(str, arguments(tmp_path, *given)), "--json"])
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["rows"][-1]["accuracies"]["icons"]["mean"] == alone["after"]


def write_pictures(folder: Path, brightness: int) -> Path:
    """Of a data set `folder`: three classes in each split."""
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "val", "test"):
        for label in range(3):
            place = folder / split / f"{split}-{label}"
            place.mkdir(parents=True)
            for sample in range(3):
                image.new("L", (28, 28), brightness + 30 * label + sample).save(place / f"{sample}.png")
    return folder


def test_data_sets_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    own, other, third = (write_pictures(tmp_path / name, 10 * place) for place, name in enumerate("abc"))
    config = write_config(tmp_path / "maml.toml", "maml")
    config.write_text(config.read_text() + f'[data]\nname = "folder"\npath = "{own}"\n')
    given = [part for part in arguments(tmp_path, config) if part not in ("--cross", "none")]
    cross = [f"folder={path}" for path in (own, other, third, third / ".." / "c")]
    crosses = [part for text in cross for part in ("--cross", text)]
    done = CliRunner().invoke(app, [*map(str, given), *crosses, "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert row["group"]["data"] == "folder a"
    assert list(row["accuracies"]) == ["folder a", "folder b", "folder c"]

    # The finished model does not know where its data are.
    (trained,) = (tmp_path / "runs").glob("*/model.onnx")
    given = arguments(tmp_path, trained)
    assert "data set 'folder': is not at hand" in error_of(*given[1:])
    done = CliRunner().invoke(app, [*map(str, given), "--path", str(own), "--json"])
    assert done.exit_code == 0, done.output
    (again,) = json.loads(done.stdout)["rows"]
    assert again["accuracies"] == {"folder": row["accuracies"]["folder a"]}


def test_own_data_without_a_test_split_are_an_error_before_training(tmp_path: Path) -> None:
    own = write_pictures(tmp_path / "mine", 0)
    shutil.rmtree(own / "test")
    config = write_config(tmp_path / "maml.toml", "maml")
    config.write_text(config.read_text() + f'[data]\nname = "folder"\npath = "{own}"\n')
    assert "has no test split" in error_of(*arguments(tmp_path, config)[1:])
    assert not list((tmp_path / "runs").rglob("checkpoint.pt"))


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 200
    while not path.exists() or not path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be interrupted"
        time.sleep(0.02)


def start(folder: Path, config: Path, on_sigint: str) -> subprocess.Popen[str]:
    """In a process group of its own. on_sigint: a shell lets its background ignore it, a terminal does not."""
    program = f"import signal; signal.signal(signal.SIGINT, signal.{on_sigint}); "
    program += "from pmeta.trainer.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments(folder, config))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_and_goes_on_as_if_nothing_had_been(tmp_path: Path, number: signal.Signals) -> None:
    config = write_config(tmp_path / "maml.toml", "maml", iterations=150)
    process = start(tmp_path, config, "default_int_handler" if number == signal.SIGINT else "SIG_IGN")
    run = tmp_path / "runs" / "maml"
    wait_for(run / "curve.jsonl", process)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 130, messages
    assert "run the same command to continue" in messages and "Traceback" not in messages
    assert (run / "checkpoint.pt").exists() and not (run / "model.onnx").exists() and not (tmp_path / "out").exists()

    done = pmeta_train(*arguments(tmp_path, config))
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole.onnx"
    done = pmeta_train("train", config, "--out", whole, "--run-dir", tmp_path / "whole", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (run / "model.onnx").read_bytes() == whole.read_bytes()


def test_without_the_command_the_workers_save_and_end(tmp_path: Path) -> None:
    process = start(tmp_path, write_config(tmp_path / "maml.toml", "maml", iterations=3000), "SIG_IGN")
    run = tmp_path / "runs" / "maml"
    wait_for(run / "curve.jsonl", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=200)  # the worker holds no end of these pipes
    deadline = time.monotonic() + 200
    while not (run / "checkpoint.pt").exists():
        assert time.monotonic() < deadline, "not saved"
        time.sleep(0.02)
    reached = json.loads((run / "curve.jsonl").read_text().splitlines()[-1])["iteration"]
    assert reached < 250, "it went on to the first checkpoint of every training"


def test_one_that_fails_does_not_spoil_the_others(tmp_path: Path) -> None:
    good = write_config(tmp_path / "maml.toml", "maml")
    bad = write_config(tmp_path / "anil.toml", "anil")
    bad.write_text(bad.read_text() + f'[data]\nname = "omniglot"\npath = "{tmp_path}/nowhere"\n')
    done = pmeta_train(*arguments(tmp_path, bad, good))
    assert done.returncode == 6 and "| MAML |" in done.stdout and "ANIL" not in done.stdout.partition("- Accuracy")[0]
    assert done.stderr.splitlines()[-1].startswith(f"error: data set 'omniglot' at {tmp_path}/nowhere: is not at hand")


def error_of(*given: str | Path) -> str:
    """The error that a command line ends with; it has one line by construction."""
    error = CliRunner().invoke(app, ["compare", *map(str, given)]).exception
    assert isinstance(error, PmetaError), error
    return str(error)


def test_a_network_for_evaluation_alone_has_an_accuracy(tmp_path: Path) -> None:
    config = write_config(tmp_path / "batch.toml", "maml")
    config.write_text(config.read_text().replace("width = 4", 'width = 4\nnormalization = "batch"'))
    done = pmeta_train(*arguments(tmp_path, config))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES[1:]
    (row,) = csv.DictReader((tmp_path / "out" / "table.csv").open())
    assert 0 <= float(row["in_domain_accuracy"]) <= 1 and "memory_bytes" not in row
    assert (tmp_path / "runs" / "batch" / "model.pt").exists()


def test_other_data_sets_are_read_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("pmeta.trainer.commands.compare._work", lambda jobs, _: started.extend(jobs) or [])
    monkeypatch.setenv("PMETA_DATA", str(tmp_path))
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "images_background.zip").touch()
    given = [part for part in arguments(tmp_path, write_config(tmp_path / "maml.toml", "maml")) if part != "none"]
    given.remove("--cross")
    assert "the evaluation set is missing" in error_of(*given[1:], "--cross", "omniglot")
    assert not started

    done = CliRunner().invoke(app, list(map(str, given)))  # by default it is left out
    assert done.exit_code == 0 and "not tested on omniglot: " in done.stderr, done.output
    (job,) = started
    assert "icons" in [target.label for target in job.targets]
    assert "omniglot" not in [target.label for target in job.targets]


def test_figures_that_cannot_be_stored_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "figures").touch()
    given = arguments(tmp_path, write_config(tmp_path / "maml.toml", "maml"))
    assert "File exists; choose another --runs" in error_of(*given[1:])


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    config = write_config(tmp_path / "maml.toml", "maml")
    assert "is neither a file nor a shipped" in error_of(tmp_path / "no.toml")
    assert "is no list of numbers" in error_of(config, "--seeds", "1;2")
    assert "names a seed twice" in error_of(config, "--seeds", "1,1")
    assert "did you mean" in error_of(config, "--cross", "omniglott")
    assert "is not at hand" in error_of(config, "--cross", f"omniglot={tmp_path}/no")
    for folder in (config, config / "below"):
        assert "is no folder; choose another --out" in error_of(config, "--out", folder)
        assert "is no folder; choose another --runs" in error_of(config, "--runs", folder)
    assert "no finished model is given" in error_of(config, "--path", tmp_path)
    assert "pip install" in one_line_of(pmeta_train("compare", config, without_torch=True), 7)
