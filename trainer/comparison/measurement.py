"""What is measured of each entry, on which tasks, and what of it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.comparison.costs import Costs, PaperCosts
from pmeta.trainer.comparison.entries import Entry, FinishedModel, checked_model
from pmeta.trainer.comparison.store import Store
from pmeta.trainer.datasets.base import ClassSamples, Dataset
from pmeta.trainer.datasets.convert import fitted
from pmeta.trainer.datasets.episodes import most_queries
from pmeta.trainer.datasets.hashing import data_hash

FORMAT = 3  # of stored figures: those of another one are measured again
MAX_MODEL_BYTES = 4 << 30


@dataclass(frozen=True)
class Protocol:
    """The tasks: the same for all entries of equal data, ways and shots."""

    tasks: int = 1000
    queries: int = 15  # per class; of data sets that have fewer, as many as they have
    seed: int = 10_000


@dataclass(frozen=True)
class Accuracies:
    """After adaptation, of one model."""

    of_tasks: tuple[float, ...]  # in 0..1
    queries: int  # per class


@dataclass(frozen=True)
class TaskSource:
    """What tasks are drawn from."""

    samples: ClassSamples  # as the model takes them
    queries: int  # per class


@dataclass(frozen=True)
class Unavailable:
    """Why there is no accuracy: the data set has no such tasks."""

    reason: str


@dataclass(frozen=True)
class Figures:
    """All that is measured of one entry."""

    method: str
    ways: int
    shots: int
    data: str  # label of what it was trained on
    accuracies: Mapping[str, Accuracies | Unavailable]  # by label of the data set
    costs: Costs | None  # None: the device does not know such networks


@dataclass(frozen=True)
class Target:
    """What to test on."""

    label: str  # no other data set of the comparison has it
    data: Dataset


@dataclass(frozen=True)
class Job:
    """An entry to train, where that is left, and to measure."""

    entry: Entry
    targets: tuple[Target, ...]  # the entry's own data first
    protocol: Protocol
    store: Store
    device: str  # auto, cpu or cuda


@dataclass(frozen=True)
class Finished:
    """A job whose model is trained: which figures are known, and what the others are measured on."""

    job: Job
    trained: FinishedModel

    @cached_property
    def model_sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(read_file(self.job.entry.model_path, MAX_MODEL_BYTES)).hexdigest()

    @property
    def figures(self) -> Figures | None:
        """Everything; None if something is not known yet. Raises DataError without tasks of the entry's own data."""
        self.own_test_data()
        accuracies = {target.label: self.accuracies(target.data) for target in self.job.targets}
        known = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
        if self.lacks_costs or len(known) < len(accuracies):
            return None
        trained, name = self.trained, self.job.targets[0].label
        return Figures(trained.method, trained.ways, trained.shots, name, known, self.costs)

    def accuracies(self, target: Dataset) -> Accuracies | Unavailable | None:
        """None: not known yet."""
        data = self.test_data(target)
        if isinstance(data, Unavailable):
            return data
        value = self.job.store.get(self.key("accuracies", target, data))
        return None if value is None else Accuracies(tuple(value["after"]), data.queries)

    @property
    def lacks_costs(self) -> bool:
        """Whether there are costs that are not known yet."""
        return self.trained.model is not None and self.costs is None

    @property
    def costs(self) -> Costs | None:
        """None: not known yet, or there are none."""
        value = self.job.store.get(self.costs_key)
        if value is None:
            return None
        parts: dict[str, Any] = {
            name: PaperCosts(**part) if isinstance(part, dict) else part for name, part in value.items()
        }
        return Costs(**parts)

    def test_data(self, target: Dataset) -> TaskSource | Unavailable:
        """The test classes of `target` in the shape that the model takes, if they are enough for its tasks.

        Raises DataError if `target` is not at hand.
        """
        test_split(target)  # a data set that cannot be read is an error, one that does not fit is none
        try:
            samples = _fitted(*self._place(target))
            trained, queries = self.trained, self.job.protocol.queries
            return TaskSource(samples, most_queries(samples, trained.ways, trained.shots, queries))
        except DataError as error:
            return Unavailable(error.what)

    def own_test_data(self) -> TaskSource:
        """Of the data set that was trained on. Raises DataError if it is not enough."""
        data = self.test_data(self.job.entry.data)
        if isinstance(data, Unavailable):
            raise DataError(data.reason, f"data set '{self.job.entry.data.name}'", "ask for fewer ways or shots")
        return data

    @property
    def costs_key(self) -> dict[str, Any]:
        """All that the costs depend on: what attention keeps, on the entry's own data."""
        return self.key("costs", self.job.entry.data, self.own_test_data())

    def key(self, kind: str, target: Dataset, data: TaskSource) -> dict[str, Any]:
        """All that a figure on `target` depends on."""
        protocol = asdict(self.job.protocol) | {"queries": data.queries}
        hashes = {"model_sha256": self.model_sha256, "data_sha256": _sha256(*self._place(target))}
        return {"format": FORMAT, "kind": kind, "data": target.name} | hashes | protocol

    def _place(self, target: Dataset) -> tuple[Dataset, type[Dataset], tuple[int, ...]]:
        return target, type(self.job.entry.data), self.trained.input_shape


def finished(job: Job) -> Finished | None:
    """None: its training is not finished. Raises ConfigError or ModelError if its model is another's, or damaged."""
    return Finished(job, checked_model(job.entry)) if job.entry.model_path.exists() else None


# Several entries are measured on the same data.


@lru_cache(maxsize=8)
def test_split(target: Dataset) -> ClassSamples:
    """All its test classes. Raises DataError if they are not at hand, or damaged."""
    return target.load("test")


@lru_cache(maxsize=8)
def _fitted(target: Dataset, trained_on: type[Dataset], shape: tuple[int, ...]) -> ClassSamples:
    return fitted(test_split(target), target, shape, trained_on)


@lru_cache
def _sha256(target: Dataset, trained_on: type[Dataset], shape: tuple[int, ...]) -> str:
    return data_hash(_fitted(target, trained_on, shape))
