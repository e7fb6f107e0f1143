"""The command line: what it writes, and that every mistake is one line and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pmeta.codegen.taskfile import load_tasks

pytestmark = pytest.mark.unit

SMALL = """
[task]
ways = 3
shots = 1
queries = 1
[network]
width = 4
[method]
steps = 1
[training]
iterations = 2
tasks_per_batch = 2
validate_every = 1
validation_tasks = 2
"""


def pmeta_train(*arguments: str | Path, without_torch: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    hide = "import sys; sys.modules['torch'] = None; " if without_torch else ""
    program = f"{hide}from pmeta.trainer.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


def one_line_of(result: subprocess.CompletedProcess[str], code: int) -> str:
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_train_resume_and_evaluate(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    model, run = tmp_path / "model.onnx", tmp_path / "run"
    train = ("train", config, "--out", model, "--run-dir", run, "--device", "cpu")
    result = pmeta_train(*train)
    assert result.returncode == 0, result.stderr
    assert "already holds a training" in one_line_of(pmeta_train(*train), 3)
    before = model.read_bytes()
    assert pmeta_train(*train, "--resume").returncode == 0
    assert model.read_bytes() == before
    assert "belongs to another configuration" in one_line_of(pmeta_train(*train, "--resume", "--seed", "9"), 6)

    result = pmeta_train("evaluate", model, "--tasks", "3", "--queries", "2", "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["tasks"] == 3 and figures["ways"] == 3 and figures["shots"] == 1
    assert 0 <= figures["after"] <= 1

    result = pmeta_train("evaluate", model, "--tasks", "3", "--queries", "2", "--deployed", "--json")
    assert result.returncode == 0, result.stderr
    deployed = json.loads(result.stdout)
    assert (deployed["queries"], deployed["queries_in_all"]) == (2, 18)
    assert deployed["torch_after"] == pytest.approx(figures["after"])

    fewer = ("evaluate", model, "--tasks", "3", "--queries", "2", "--ways", "2", "--json")
    figures, deployed = (json.loads(pmeta_train(*fewer, *more).stdout) for more in ((), ("--deployed",)))
    assert figures["ways"] == 2 and deployed["queries_in_all"] == 12
    assert deployed["torch_after"] == pytest.approx(figures["after"])
    assert "3 classes" in one_line_of(pmeta_train("evaluate", model, "--ways", "4"), 3)


def test_what_the_device_cannot_do_is_evaluated_from_a_file_of_parameters(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "base.toml").write_text(SMALL)
    config = tmp_path / "batch.toml"
    config.write_text('extends = "base.toml"\n[network]\nnormalization = "batch"')
    run = ("--run-dir", tmp_path / "run", "--device", "cpu")
    line = one_line_of(pmeta_train("train", config, "--out", tmp_path / "model.onnx", *run), 3)
    assert "'network.normalization' is 'batch', which the device does not know; train for evaluation alone" in line
    assert not (tmp_path / "run").exists()

    parameters = tmp_path / "model.pt"
    result = pmeta_train("train", config, "--out", parameters, *run)
    assert result.returncode == 0, result.stderr
    result = pmeta_train("evaluate", parameters, "--tasks", "3", "--queries", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["ways"] == 3
    # Said before any data are read: there are none here.
    line = one_line_of(
        pmeta_train("evaluate", parameters, "--deployed", "--data", "npz", "--path", tmp_path / "no.npz"), 3
    )
    assert "a file of parameters has no generated C" in line
    result = pmeta_train("attention", parameters, "--tasks", "2", "--out", tmp_path / "figure.png", "--json")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["ratio_mean"]) == 1
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_need_no_torch(tmp_path: Path) -> None:
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file in files:
        result = pmeta_train("tasks", "--count", "2", "--shots", "1", "--out", file, without_torch=True)
        assert result.returncode == 0, result.stderr
    assert files[0].read_bytes() == files[1].read_bytes()
    tasks = load_tasks(files[0])
    assert len(tasks) == 2 and tasks[0].support_x.shape == (5, 1, 28, 28) and tasks[0].query_x.shape[0] == 75


def test_tasks_for_a_model(tmp_path: Path) -> None:
    """Its data set, ways and shots; other data in its shape."""
    shipped, out = Path(__file__).parents[2] / "models" / "icons-4conv-5way.onnx", tmp_path / "t.npz"
    for more, queries in (((), 5), (("--data", "emoji", "--shots", "3"), 2)):
        result = pmeta_train("tasks", "--model", shipped, "--queries", queries, "--out", out, *more, without_torch=True)
        assert result.returncode == 0, result.stderr
        assert load_tasks(out)[0].support_x.shape == (5 * (3 if more else 5), 1, 28, 28)
    line = one_line_of(pmeta_train("tasks", "--model", shipped, "--ways", "7", "--out", out), 3)
    assert "the model tells 5 classes apart" in line


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    line = one_line_of(pmeta_train("train", "icons-quick.toml", "--out", tmp_path / "m.onnx", without_torch=True), 7)
    assert "run: pip install torch" in line


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bad.toml").write_text("[training]\niteratons = 3")
    out = ("--out", tmp_path / "m.onnx")
    assert "did you mean" in one_line_of(pmeta_train("train", tmp_path / "bad.toml", *out), 3)
    assert "is neither a file nor" in one_line_of(pmeta_train("train", tmp_path / "no.toml", *out), 3)
    assert "cannot be read" in one_line_of(pmeta_train("evaluate", tmp_path / "no.onnx"), 4)
    (tmp_path / "text.onnx").write_text("no model")
    assert "not an ONNX file" in one_line_of(pmeta_train("evaluate", tmp_path / "text.onnx"), 4)
    assert "ask for fewer ways, shots or queries" in one_line_of(
        pmeta_train("tasks", "--shots", "50", "--out", tmp_path / "t.npz"), 6
    )
    assert "MiB of samples are too many for one file" in one_line_of(
        pmeta_train("tasks", "--count", "100000", "--out", tmp_path / "t.npz"), 6
    )
    assert not list(tmp_path.glob("*.npz*"))
    # Before hours of training, not after them.
    own = ("--run-dir", tmp_path / "run", "--out", tmp_path / "run" / ".." / "run" / "checkpoint.pt")
    (tmp_path / "run").mkdir()
    assert "is the training's checkpoint" in one_line_of(pmeta_train("train", "icons-quick.toml", *own), 3)
    shipped = Path(__file__).parents[2] / "models" / "icons-4conv-5way.onnx"
    assert "use --data" in one_line_of(pmeta_train("evaluate", shipped, "--option", "name=emoji"), 3)
    assert "is no file" in one_line_of(pmeta_train("train", "icons-quick.toml", "--out", tmp_path), 3)
    nowhere = ("--out", tmp_path / "no" / "a.png")
    assert "its folder does not exist" in one_line_of(pmeta_train("attention", shipped, *nowhere), 3)


def test_evaluate_asks_for_as_many_queries_as_there_are(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "small.toml").write_text(SMALL)
    model = tmp_path / "model.onnx"
    trained = pmeta_train("train", tmp_path / "small.toml", "--out", model, "--run-dir", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    done = pmeta_train("evaluate", model, "--data", "emoji", "--tasks", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["queries"] == 2  # the vendor held out has drawn each emoji twice
    assert "there are 0" in one_line_of(pmeta_train("evaluate", model, "--data", "emoji", "--queries", "15"), 6)
    line = one_line_of(pmeta_train("evaluate", model, "--data", "icon"), 3)
    assert line == "error: command line: unknown data set 'icon'; did you mean 'icons'?"


def test_completion_exists() -> None:
    result = pmeta_train("--help")
    assert "--show-completion" in result.stdout
