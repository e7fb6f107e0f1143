"""The table of a comparison, as data, text and picture; which entries arguments name; figures that are known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from pmeta.codegen.adaptation import Adaptation
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.modelfile import save_model
from pmeta.trainer.comparison.costs import Costs, PaperCosts
from pmeta.trainer.comparison.entries import Entry, FinishedModel, checked_model, entries_of
from pmeta.trainer.comparison.measurement import Accuracies, Figures, Finished, Job, Protocol, Unavailable
from pmeta.trainer.comparison.picture import DPI, PANEL, save_picture, spread, with_costs
from pmeta.trainer.comparison.store import Store
from pmeta.trainer.comparison.table import Comparison, comparison
from pmeta.trainer.comparison.text import csv_text, json_value, markdown
from pmeta.trainer.config import METHODS
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.icons import Icons
from pmeta.trainer.intervals import mean_over
from tests.models import random_4conv

pytestmark = pytest.mark.unit

COMMAND = "pmeta-train compare a.toml"


def costs(kilobytes: float, arena: int) -> Costs:
    paper = PaperCosts(1000 * kilobytes, 5e7)
    everything, last = PaperCosts(400_000, 1e8), PaperCosts(100_000, 1e7)
    return Costs(paper, paper, everything, last, arena, 300_000, 50_000)


def entry(name: str, seed: int = 1) -> Entry:
    return Entry(name, Path(f"runs/{name}-{seed}/model.onnx"), Icons(), seed)


def accuracies(mean: float, spread: float, queries: int) -> Accuracies:
    """Of two tasks, so far apart that the half-width of the interval is `spread`."""
    apart = spread / 1.96
    return Accuracies((mean - apart, mean + apart), queries)


def figures(method: str, mean: float, kilobytes: float = 200, shots: int = 1) -> Figures:
    measured = {
        "icons": accuracies(mean, 0.01, 15),
        "emoji": accuracies(0.5, 0.02, 2),
        "omniglot": Unavailable("too few classes"),
    }
    return Figures(method, 5, shots, "icons", measured, costs(kilobytes, 150_000))


def example() -> Comparison:
    found = [
        (entry("five"), figures("maml", 0.8, 400, shots=5)),
        (entry("one/maml++"), figures("maml++", 0.6, 400)),
        (entry("one/p"), figures("p-meta-3.2", 0.62, 160)),
        (entry("one/p", 2), figures("p-meta-3.2", 0.64, 200)),
    ]
    return comparison(found, Protocol(1000), COMMAND)


def test_rows_are_grouped_by_task_and_seeds_are_one_row() -> None:
    made = example()
    assert [(row.group.shots, row.name, row.seeds) for row in made.rows] == [
        (1, "MAML++", (1,)), (1, "p-Meta (3.2)", (1, 2)), (5, "MAML", (1,)),
    ]  # fmt: skip
    row = made.rows[1]
    assert row.costs is not None
    assert row.in_domain.mean == pytest.approx(0.63) and row.costs.paper.memory_bytes == 180_000
    assert row.accuracies["omniglot"] == Unavailable("too few classes")


def test_the_interval_over_seeds_has_a_part_for_seeds_and_one_for_tasks() -> None:
    assert mean_over(np.array([[0.6, 0.62]])).interval == pytest.approx(1.96 * 0.01)
    three = mean_over(np.array([[0.5, 0.7], [0.54, 0.7], [0.6, 0.68]]))
    assert three.mean == pytest.approx(0.62)
    assert three.interval == pytest.approx(sqrt((4.303 * 0.02) ** 2 / 3 + (1.96 * 0.44 / 3 / 2) ** 2))
    many = mean_over(np.array([[0.1 * seed, 0.1 * seed] for seed in range(12)]))  # of 11 degrees of freedom: as of 9
    assert many.interval == pytest.approx(2.262 * np.std(np.arange(12) / 10, ddof=1) / sqrt(12))


def test_the_interval_covers_the_mean_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(5)
    trials, seeds, tasks = 2000, 3, 200
    covered = 0
    for _ in range(trials):
        values = 0.7 + rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, 0.1, tasks) + rng.normal(0, 0.05, (seeds, tasks))
        found = mean_over(values)
        covered += abs(found.mean - 0.7) < found.interval
    assert 0.945 < covered / trials < 0.99  # a little too wide, never too narrow


def trained(method: str, seed: int, *of_tasks: float, queries: int = 15) -> tuple[Entry, Figures]:
    return entry(method, seed), Figures(method, 5, 1, "icons", {"icons": Accuracies(of_tasks, queries)}, None)


def test_the_difference_from_mamlpp_is_of_pairs() -> None:
    # Tasks differ far more than methods do: paired, the difference is told apart all the same.
    reference = [trained("maml++", 1, 0.2, 0.5, 0.9), trained("maml++", 2, 0.22, 0.5, 0.9)]
    ours = [trained("anil", 2, 0.2, 0.49, 0.88), trained("anil", 1, 0.18, 0.49, 0.89)]  # in another order
    made = comparison([*reference, *ours], Protocol(), COMMAND)
    first, second = made.rows
    assert first.differences == {} and second.method == "anil"
    found = second.differences["icons"]
    of_tasks, of_seeds = np.array([-0.02, -0.01, -0.015]), np.array([-0.04 / 3, -0.05 / 3])
    assert found.mean == pytest.approx(-0.015)
    tasks, seeds = 1.96 * np.std(of_tasks, ddof=1) / sqrt(3), 12.706 * np.std(of_seeds, ddof=1) / sqrt(2)
    assert found.interval == pytest.approx(sqrt(tasks**2 + seeds**2))
    assert found.interval < second.in_domain.interval / 5


def test_without_a_pair_there_is_no_difference() -> None:
    reference = trained("maml++", 1, 0.2, 0.5)
    for other in (trained("anil", 2, 0.2, 0.5), trained("anil", 1, 0.2, 0.5, 0.6)):  # another seed, other tasks
        assert comparison([reference, other], Protocol(), COMMAND).rows[1].differences == {}
    twice = [reference, (replace(reference[0], name="again"), reference[1]), trained("anil", 1, 0.1, 0.2)]
    assert [row.differences for row in comparison(twice, Protocol(), COMMAND).rows] == [{}, {}, {}]
    unknown = replace(trained("anil", 1, 0.2, 0.5)[0], seed=None), trained("anil", 1, 0.2, 0.5)[1]
    assert comparison([reference, unknown], Protocol(), COMMAND).rows[1].differences == {}


def test_markdown_and_csv_have_the_differences() -> None:
    found = [trained("maml++", 1, 0.2, 0.5), trained("anil", 1, 0.21, 0.48), trained("boil", 2, 0.21, 0.48)]
    made = comparison(found, Protocol(), COMMAND)
    lines = markdown(made).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:7]]
    assert [row[2] for row in cells] == ["minus MAML++", "---:", "–", "-0.50 ± 2.94", "–"]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert any(line.startswith("- Minus MAML++: ") for line in lines)
    rows = list(csv.DictReader(csv_text(made).splitlines()))
    assert float(rows[1]["in_domain_difference"]) == pytest.approx(-0.005)
    assert [row["in_domain_difference_interval"] for row in (rows[0], rows[2])] == ["", ""]


def test_a_method_that_comes_twice_is_named_with_its_configuration() -> None:
    made = comparison([(entry("a/x"), figures("maml", 0.5)), (entry("a/y"), figures("maml", 0.6))], Protocol(), COMMAND)
    assert [row.name for row in made.rows] == ["MAML, x", "MAML, y"]
    made = comparison([(entry("a/x"), figures("maml", 0.5)), (entry("b/x"), figures("maml", 0.6))], Protocol(), COMMAND)
    assert [row.name for row in made.rows] == ["MAML, a/x", "MAML, b/x"]


def test_markdown() -> None:
    lines = markdown(example()).splitlines()
    assert lines[0] == "**5-way 1-shot, trained on icons**"
    heads, _, first, second = (line.strip("| ").split(" | ") for line in lines[2:6])
    assert heads == [
        "method", "icons, %", "emoji, %", "GMAC", "memory, kB", "less than MAML++", "best possible",
        "real memory, kB", "less than MAML++", "best possible",
    ]  # fmt: skip
    assert first == [
        "MAML++",
        "60.00 ± 1.00",
        "50.00 ± 2.00",
        "0.0500",
        "400.0",
        "1.00×",
        "4.00×",
        "150.0",
        "2.00×",
        "6.00×",
    ]
    assert second[0] == "p-Meta (3.2)" and second[4:6] == ["180.0", "2.22×"]
    text = "\n".join(lines)
    assert "interval over seeds (Student's t) and tasks" in text and "- –: omniglot: too few classes." in text
    assert "- emoji: 2 query samples per class, as many as there are." in lines
    assert f"`{COMMAND}`" in lines[-1]


def test_csv_and_json() -> None:
    rows = list(csv.DictReader(csv_text(example()).splitlines()))
    assert [row["method"] for row in rows] == ["maml++", "p-meta-3.2", "maml"]
    assert float(rows[0]["in_domain_accuracy"]) == pytest.approx(0.6) and rows[0]["omniglot_accuracy"] == ""
    assert float(rows[1]["memory_bytes"]) == 180_000 and float(rows[1]["memory_ratio"]) == pytest.approx(400 / 180)
    assert rows[1]["seeds"] == "1 2"
    value = json.loads(json.dumps(json_value(example())))
    found = value["rows"][0]["accuracies"]["icons"]
    assert found == {"mean": pytest.approx(0.6), "interval": pytest.approx(0.01), "queries": 15}
    assert value["rows"][0]["best_memory_ratio"] == 4 and value["protocol"]["tasks"] == 1000


def test_what_the_device_does_not_know_has_no_costs() -> None:
    bare = replace(figures("maml", 0.5), costs=None)
    made = comparison([(entry("a"), figures("maml++", 0.6)), (entry("b"), bare)], Protocol(), COMMAND)
    lines = markdown(made).splitlines()
    assert lines[5].startswith("| MAML | 50.00 ± 1.00 |") and lines[5].count("–") == 7
    assert "- –: no costs: the device does not know such networks, they are for evaluation alone." in lines
    rows = list(csv.DictReader(csv_text(made).splitlines()))
    assert rows[1]["memory_bytes"] == "" and json_value(made)["rows"][1]["costs"] is None
    assert [len(points) for points in with_costs(made).values()] == [1]


def test_the_picture_has_a_panel_for_each_task(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    save_picture(example(), tmp_path / "figure.png")
    with image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (round(2 * PANEL[0] * DPI), round(PANEL[1] * DPI))
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0x56, 0xB4, 0xE9)):  # of MAML++, p-Meta (3.2), MAML
        assert (pixels == colour).all(1).sum() > 200
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_spread_without_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.uniform(0, 100, 7) if seed % 2 else np.round(rng.uniform(40, 60, 7))
    placed = spread(wanted, 10, 0, 100)
    assert np.diff(np.sort(placed)).min() > 10 - 1e-9
    assert placed.min() > -1e-9 and placed.max() < 100 + 1e-9
    assert (np.diff(placed[np.argsort(wanted, kind="stable")]) > 0).all()
    alone = np.array([10.0, 50.0, 90.0])
    assert np.array_equal(spread(alone, 10, 0, 100), alone)


# --- entries -------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_methods_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for method in sorted(METHODS):
        (tmp_path / "set" / f"{method}.toml").write_text(f'[method]\nname = "{method}"')
    (tmp_path / "set" / "base.toml").write_text("no configuration by itself")
    found = entries_of([Path("set")], Path("runs"))
    assert [one.name for one in found] == [f"set/{method}" for method in METHODS]
    assert found[0].model_path == Path("runs/set/maml/model.onnx")


def test_seeds_and_iterations_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[training]\nseed = 2")
    found = entries_of([tmp_path / "a.toml"], Path("runs"), (1, 2), 7)
    assert [one.run_dir for one in found] == [Path("runs/a-seed-1"), Path("runs/a")]
    assert all(one.config is not None and one.config.training.iterations == 7 for one in found)
    assert [one.config.training.seed for one in found if one.config] == [1, 2]
    with pytest.raises(ConfigError, match=r"'training\.seed' is -1"):
        entries_of([tmp_path / "a.toml"], Path("runs"), (-1,))


def test_entries_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(ConfigError, match="given twice"):
        entries_of([tmp_path / "a.toml", tmp_path / "a.toml"], Path("runs"))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="holds no configurations"):
        entries_of([tmp_path / "none"], Path("runs"))
    save_model(random_4conv(1), tmp_path / "own.onnx")
    with pytest.raises(ConfigError, match="was not trained by pmeta-train"):
        entries_of([tmp_path / "own.onnx"], Path("runs"))


def test_a_finished_model_must_be_what_its_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("")
    (made,) = entries_of([tmp_path / "a.toml"], tmp_path / "runs")
    model = random_4conv(1)
    assert made.config is not None
    adaptation: Adaptation = replace(model.adaptation, training={"config": made.config.as_dict(), "seed": 1})
    made.model_path.parent.mkdir(parents=True)
    save_model(replace(model, adaptation=adaptation), made.model_path)
    found = checked_model(made)
    assert found.model is not None and (found.ways, found.method) == (5, "p-meta-3.2+3.3")
    (given,) = entries_of([made.model_path], Path("runs"))
    assert (given.name, given.config, given.seed) == ("a", None, 1)

    (tmp_path / "a.toml").write_text("[training]\nclip_norm = 3.0")
    (changed,) = entries_of([tmp_path / "a.toml"], tmp_path / "runs")
    with pytest.raises(ConfigError, match="is not what 'a' says now"):
        checked_model(changed)


def finished_model(path: Path, method: str, seed: int, data: str = "00", name: str = "icons") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {"data": {"name": name}, "method": {"name": method}, "training": {"seed": seed, "clip_norm": 1.0}}
    model, training = random_4conv(1), {"config": config, "seed": seed, "data_sha256": data}
    save_model(replace(model, adaptation=replace(model.adaptation, training=training)), path)
    return path


def test_a_model_in_the_working_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_model(tmp_path / "mine" / "model.onnx", "maml", 1)
    monkeypatch.chdir(tmp_path / "mine")
    assert [one.name for one in entries_of([Path("model.onnx")], Path("runs"))] == ["mine"]


def test_finished_models_are_seeds_of_one_row_if_nothing_else_differs(tmp_path: Path) -> None:
    def names(*models: Path) -> list[str]:
        return [one.name for one in entries_of(models, tmp_path / "runs")]

    first = finished_model(tmp_path / "a" / "m.onnx", "maml", 1)
    other = finished_model(tmp_path / "b" / "m.onnx", "p-meta-3.2", 1)
    assert names(first, other) == [first.as_posix(), other.as_posix()]  # whatever the files are called
    second = finished_model(tmp_path / "seed-2.onnx", "maml", 2)
    assert names(first, second) == ["m", "m"]
    twin = finished_model(tmp_path / "twin.onnx", "maml", 1)
    assert names(first, twin, second) == ["m", "twin", "m"]  # one seed counts once
    assert names(first, finished_model(tmp_path / "elsewhere.onnx", "maml", 2, "ff")) == ["m", "elsewhere"]
    (tmp_path / "m.toml").write_text("")
    assert names(first, tmp_path / "m.toml") == [first.as_posix(), "m"]


def test_the_data_of_finished_models_are_where_the_path_says(tmp_path: Path) -> None:
    model = finished_model(tmp_path / "own.onnx", "maml", 1, name="folder")
    (tmp_path / "a.toml").write_text("")
    found = entries_of([model, tmp_path / "a.toml"], tmp_path / "runs", path=tmp_path / "data")
    assert [(one.data.name, one.data.path) for one in found] == [("folder", tmp_path / "data"), ("icons", None)]
    other = finished_model(tmp_path / "other.onnx", "maml", 1)
    with pytest.raises(ConfigError, match="were trained on folder and icons"):
        entries_of([model, other], tmp_path / "runs", path=tmp_path / "data")


def test_shipped_configurations_are_found_by_name() -> None:
    (found,) = entries_of([Path("icons-quick.toml")], Path("runs"))
    assert found.name == "icons-quick"


@pytest.mark.parametrize("shots", [1, 5])
def test_the_shipped_comparison_differs_in_nothing_but_the_method(shots: int) -> None:
    found = entries_of([Path(f"icons/5way-{shots}shot")], Path("runs"))
    configs = [one.config for one in found if one.config is not None]
    six = ["maml", "anil", "boil", "maml++", "p-meta-3.2", "p-meta-3.2+3.3"]
    assert [config.method.name for config in configs] == six
    assert all(config.task.shots == shots for config in configs)
    same = METHODS["maml"].keys() | {"name"}
    rest = [config.as_dict() for config in configs]
    for config in rest:
        config["method"] = {key: value for key, value in config["method"].items() if key not in same}
    assert all(config == rest[0] for config in rest)


def test_a_data_set_with_few_samples_gives_as_many_queries_as_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def queries(*counts: int) -> int | str:
        labels = np.repeat(np.arange(len(counts)), counts)
        samples = ClassSamples(np.zeros((len(labels), 1, 28, 28), np.uint8), labels, tuple(map(str, counts)))
        trained = FinishedModel(2, 1, (1, 28, 28), {}, None)
        job = Job(entry("a"), (), Protocol(queries=5), Store(Path("none")), "cpu")
        monkeypatch.setattr(Icons, "load", Mock(return_value=samples))
        found = Finished(job, trained).test_data(Icons(Path(f"elsewhere-{counts}")))
        return found.reason if isinstance(found, Unavailable) else found.queries

    assert queries(6, 6, 2) == 5  # the protocol's: the third class is left out
    assert queries(5, 5, 5) == 4
    assert queries(5, 5, 3) == 2  # the classes that have two stay in
    assert queries(2, 2, 9) == 1
    assert "a task needs 2 classes with 1 + 1 samples each" in str(queries(1, 1, 9))


# --- what is known -------------------------------------------------------------------------------------------


def test_the_store_gives_what_was_put_and_nothing_else(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "figures"), {"kind": "accuracy", "seed": 1}
    assert store.get(key) is None
    store.put(key, {"mean": 0.1})
    assert store.get(key) == {"mean": 0.1} and store.get(key | {"seed": 2}) is None
    (file,) = (tmp_path / "figures").iterdir()
    for damaged in ("", "[]", '{"key": 1}', "[" * 100_000, file.read_text().replace('"seed": 1', '"seed": 2')):
        file.write_text(damaged)
        assert store.get(key) is None
