"""Tasks to test a model on, of the data set and with the options of its training, or of another. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmeta.codegen.errors import ConfigError, DataError
from pmeta.codegen.report.text import count_text
from pmeta.codegen.taskfile import Task
from pmeta.trainer.commands.common import SplitName, console, data_set
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.convert import fitted
from pmeta.trainer.datasets.episodes import most_queries
from pmeta.trainer.datasets.hashing import data_hash
from pmeta.trainer.datasets.registry import DATASETS
from pmeta.trainer.tasks import fixed_tasks

QUERIES = 15  # per class, unless others are asked for or the data set has fewer


@dataclass(frozen=True)
class TrainedFor:
    """What a model says of its training."""

    record: Mapping[str, Any]  # configuration, hash of the data
    ways: int  # most classes that it tells apart
    shots: int
    input_shape: tuple[int, ...]  # of one sample

    @property
    def data_options(self) -> dict[str, Any]:
        """The data set and its options, but not where it lies; the first models had icons."""
        options: dict[str, Any] = self.record.get("config", {}).get("data", {"name": "icons"})
        return options


def test_tasks(
    model: TrainedFor, data: str | None, path: Path | None, option: list[str] | None, split: SplitName,
    ways: int | None, shots: int | None, queries: int | None, count: int, seed: int,
) -> tuple[str, Sequence[Task]]:  # fmt: skip
    """(name of the data set, tasks in the shape the model takes); None: the model's ways and shots, many queries.

    Raises ConfigError where the tasks are none that the model can be tested on.
    """
    ways, shots = ways or model.ways, shots or model.shots
    if ways > model.ways:
        raise ConfigError(f"the model tells {model.ways} classes apart", f"--ways {ways}", "ask for fewer classes")
    trained_on = model.data_options
    name = data or trained_on["name"]
    source = data_set(name, path, option, trained_on if name == trained_on["name"] else None)
    loaded = source.load(split.value)
    if name == trained_on["name"] and split is not SplitName.TRAIN:
        as_trained = data_set(name, source.path, None, trained_on)
        refuse_trained_classes(model, source, loaded.class_names, as_trained)
        note_changed_data(model, as_trained)
    samples = fitted(loaded, source, model.input_shape, DATASETS.get(trained_on["name"]))
    if samples.fixed_order and ways < model.ways:
        what = f"of {name}, where an output means the same class in every task, no class can be left out"
        raise ConfigError(what, f"--ways {ways}", "leave out --ways")
    part = f"{name}'s {split.value} split"
    queries = queries or most_queries(samples, ways, shots, QUERIES, part)
    return name, fixed_tasks(samples, ways, shots, queries, count, seed, part)


def note_changed_data(model: TrainedFor, as_trained: Dataset) -> None:
    """Says so where classes are divided by shares, and are no longer those of the training: tests may be on them."""
    if "shares" not in as_trained.split_options:
        return
    try:
        changed = data_hash(as_trained.load("train")) != model.record.get("data_sha256")
    except DataError:  # not at hand, as where only the test set is
        return
    if changed:
        what = "note: these are not, or no longer, the data of the training; if they grew, it may know some classes"
        console.print(what, markup=False, soft_wrap=True)


def refuse_trained_classes(model: TrainedFor, source: Dataset, classes: Sequence[str], as_trained: Dataset) -> None:
    """Raises ConfigError where options of `source` put classes to the test that the model was trained on.

    as_trained: `source` with the options of the model's training. Data that are no longer the same are not judged.
    """
    changed = [name for name in source.split_options if getattr(source, name) != getattr(as_trained, name)]
    if not changed:
        return
    try:
        train = as_trained.load("train")
    except DataError:  # not at hand, as where only the test set is
        return
    known = sorted({*classes} & {*train.class_names})
    if known and data_hash(train) == model.record.get("data_sha256"):
        others = count_text(len(known) - 1, "other class", "other classes")
        what = f"tests on '{known[0]}' and {others} that the model was trained on"
        raise ConfigError(what, f"--option {changed[0]}", "leave it out, or pass --split train")
