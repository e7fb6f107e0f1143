"""The one interface of every data set: labelled samples, whole classes at a time."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError

Split = Literal["train", "val", "test"]  # no class is in two of them
SPLITS: tuple[Split, ...] = get_args(Split)
Background = Literal["dark", "light"]
DATA_FOLDER = "PMETA_DATA"  # the environment variable with the folder of all data sets

# Roles of samples, where a task may not use them freely.
ANY_ROLE, ONLY_SUPPORT, ONLY_QUERY = 0, 1, 2


@dataclass(frozen=True)
class ClassSamples:
    """Labelled samples; every class has at least one. They may lie in a file (a memory map): never copy them whole.

    Arrays are made read-only, so that loaders may share them.
    """

    samples: NDArray[np.uint8] | NDArray[np.float32]  # (N, C, H, W) uint8; float32 also (N, C, L) and (N, C)
    labels: NDArray[np.int64]  # (N,), each 0 .. number of classes - 1
    class_names: tuple[str, ...]  # by label
    domains: tuple[
        int, ...
    ] = ()  # by label: a task takes all its classes from one domain (a person); empty: one for all
    roles: NDArray[np.uint8] | None = None  # (N,) of ANY_ROLE, ONLY_SUPPORT, ONLY_QUERY; None: any
    fixed_order: bool = False  # a task's labels follow the order of the classes; otherwise they are shuffled
    families: tuple[int, ...] = ()  # by label: classes that resemble each other (an alphabet's); empty: none known

    def __post_init__(self) -> None:
        images = self.samples.dtype == np.uint8 and self.samples.ndim == 4
        series = self.samples.dtype == np.float32 and 2 <= self.samples.ndim <= 4
        if not (images or series):
            what = f"{self.samples.dtype} {self.samples.shape}"
            raise ValueError(f"samples must be uint8 (N, C, H, W) or float32 (N, C, ...), not {what}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.samples.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(self.samples)},), not {self.labels.dtype} {self.labels.shape}"
            )
        if not np.array_equal(np.unique(self.labels), np.arange(len(self.class_names))):
            raise ValueError(f"labels must use each of 0 .. {len(self.class_names) - 1}")
        for what, of_classes in (("domains", self.domains), ("families", self.families)):
            if of_classes and len(of_classes) != len(self.class_names):
                raise ValueError(f"{len(of_classes)} {what} of {len(self.class_names)} classes")
        if self.roles is not None and (self.roles.dtype != np.uint8 or self.roles.shape != self.labels.shape):
            raise ValueError(f"roles must be uint8 {self.labels.shape}, not {self.roles.dtype} {self.roles.shape}")
        for array in (self.samples, self.labels, self.roles):
            if array is not None:
                array.flags.writeable = False

    @property
    def num_classes(self) -> int:
        """Returns the number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one sample."""
        return self.samples.shape[1:]

    def subset(self, classes: Sequence[int]) -> ClassSamples:
        """Returns the samples of these classes alone, relabelled 0, 1, ... in the order given.

        Raises ValueError if a class is unknown or given twice.
        """
        if len(set(classes)) != len(classes) or not all(0 <= label < self.num_classes for label in classes):
            raise ValueError(f"classes must be distinct and in 0 .. {self.num_classes - 1}, not {list(classes)}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[list(classes)] = np.arange(len(classes))
        kept = new_label[self.labels] >= 0
        return ClassSamples(
            samples=self.samples[kept],
            labels=new_label[self.labels[kept]],
            class_names=tuple(self.class_names[label] for label in classes),
            domains=tuple(self.domains[label] for label in classes) if self.domains else (),
            roles=None if self.roles is None else self.roles[kept],
            fixed_order=self.fixed_order,
            families=tuple(self.families[label] for label in classes) if self.families else (),
        )


@dataclass(frozen=True)
class Dataset(ABC):
    """Where the files of a data set are, and how they become samples. The fields of a subclass are its options.

    A subclass checks their values in `__post_init__` and raises ValueError: "size is 0, but must be ...".
    """

    name: ClassVar[str]  # in configurations and on the command line
    title: ClassVar[str]  # one line
    how_to_get: ClassVar[str]  # one line: what to download or install, and where to put it
    licence: ClassVar[str]
    split_options: ClassVar[tuple[str, ...]] = ()  # the options that say which classes are in which split
    background: ClassVar[Background | None] = None  # of grey pictures on an even ground, to match those of another set

    path: Path | None = None  # file or folder; None: where `places` says

    @abstractmethod
    def load(self, split: Split) -> ClassSamples:
        """Returns one split. Raises DataError if files are missing or damaged, or the set has no such split."""

    def places(self) -> Iterator[Path]:
        """Where to look: `path` alone if it is given, else the usual places."""
        if self.path is not None:
            yield self.path
            return
        if DATA_FOLDER in os.environ:
            yield Path(os.environ[DATA_FOLDER]) / self.name
        yield Path("data") / self.name

    def find(self) -> Path | None:
        """Returns the first of `places` that exists."""
        return next((place for place in self.places() if place.exists()), None)

    def located(self) -> Path:
        """Returns where the data set is; raises DataError if it is not at hand."""
        found = self.find()
        if found is None:
            at = "" if self.path is None else f" at {self.path}"
            raise DataError("is not at hand", f"data set '{self.name}'{at}", self.how_to_get)
        return found

    def no_split(self, split: Split) -> DataError:
        """Returns the error for a split that this data set does not have."""
        return DataError(f"has no {split} split", f"data set '{self.name}'", "use another split or data set")
