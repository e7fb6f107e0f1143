"""The one interface of every data set: labelled images, whole classes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassImages:
    """Labelled uint8 images; every class has at least one.

    The arrays are made read-only, so that loaders may share them.
    """

    images: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.int64]  # (N,), each 0 .. number of classes - 1
    class_names: tuple[str, ...]  # by label

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(self.images)},), not {self.labels.dtype} {self.labels.shape}")
        present = np.unique(self.labels)
        if not np.array_equal(present, np.arange(len(self.class_names))):
            raise ValueError(f"labels must use each of 0 .. {len(self.class_names) - 1}")
        self.images.flags.writeable = False
        self.labels.flags.writeable = False

    @property
    def num_classes(self) -> int:
        """Returns the number of classes."""
        return len(self.class_names)

    def indices_of(self, label: int) -> NDArray[np.int64]:
        """Returns the indices of one class's images, ascending."""
        return np.flatnonzero(self.labels == label)

    def subset(self, classes: Sequence[int]) -> ClassImages:
        """Returns the images of these classes alone, relabelled 0, 1, ... in the order given.

        Raises ValueError if a class is unknown or given twice.
        """
        if len(set(classes)) != len(classes) or not all(0 <= label < self.num_classes for label in classes):
            raise ValueError(f"classes must be distinct and in 0 .. {self.num_classes - 1}, not {list(classes)}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[list(classes)] = np.arange(len(classes))
        kept = new_label[self.labels] >= 0
        names = tuple(self.class_names[label] for label in classes)
        return ClassImages(self.images[kept], new_label[self.labels[kept]], names)
