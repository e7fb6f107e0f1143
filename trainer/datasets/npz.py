"""A user's own samples in an .npz file, or in one file per split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import SPLITS, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.class_splits import DEFAULT_SHARES, check_apart, check_shares, classes_of
from pmeta.trainer.datasets.npz_arrays import npz_array, npz_names

_CHANNELS: Final = (1, 3)
AT_ONCE: Final = 1024  # samples that are looked at together: they may lie in a file


@dataclass(frozen=True)
class Npz(Dataset):
    """`path` is a file, or a folder with train.npz, val.npz and test.npz (where a set has these splits).

    Arrays of a file:
        images: uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3; or
        samples: float32 (N, C, L) or (N, C), say of a sensor.
        labels: integers or str (N,), any values.
        class_names: str (K,), optional; the labels are then 0 to K - 1.
        splits: (K,) 0 = train, 1 = val, 2 = test, by class in ascending order of labels; optional.
    A single file without `splits` is divided by `shares`. Only one file per split is never copied into memory.
    """

    name: ClassVar[str] = "npz"
    title: ClassVar[str] = "your own samples: images and labels in an .npz file"
    how_to_get: ClassVar[str] = "write numpy.savez(PATH, images=..., labels=...), and give --path PATH or data.path"
    licence: ClassVar[str] = "your own"
    split_options: ClassVar[tuple[str, ...]] = ("shares",)

    shares: tuple[float, ...] = DEFAULT_SHARES  # of the classes that train, validate and test

    def __post_init__(self) -> None:
        check_shares(self.shares)

    def places(self) -> Iterator[Path]:
        """`path` alone."""
        if self.path is not None:
            yield self.path

    def load(self, split: Split) -> ClassSamples:
        """Classes in ascending order of their labels."""
        place = self.located()
        path = place / f"{split}.npz" if place.is_dir() else place
        if not path.exists():
            raise self.no_split(split)
        data, splits = read_npz(path)
        if path != place:
            check_apart({name: _named(place / f"{name}.npz") for name in SPLITS}, str(place))
            return data
        if splits is None:
            chosen = classes_of(split, data.num_classes, self.shares)
        else:
            chosen = np.flatnonzero(splits == SPLITS.index(split)).tolist()
        if not chosen:
            raise self.no_split(split)
        return data if len(chosen) == data.num_classes else data.subset(chosen)


def read_npz(path: Path) -> tuple[ClassSamples, NDArray[np.int64] | None]:
    """Returns all samples of a file and, if it has any, the split of each class. Raises DataError."""
    names = npz_names(path)
    key = "images" if "images" in names else "samples"
    samples = _samples(npz_array(path, key), f"{path}: {key}")
    given = npz_array(path, "labels")
    if given.shape != samples.shape[:1] or given.dtype.kind not in "iuU" or not len(given):
        what = f"is {given.dtype} {given.shape}, expected integers or str ({len(samples)},), one per sample"
        raise DataError(what, f"{path}: labels", "correct the array")
    _check_finite(samples, f"{path}: {key}")
    values, labels = np.unique(given, return_inverse=True)
    class_names = tuple(str(value) for value in values)
    if "class_names" in names:
        class_names = tuple(str(name) for name in npz_array(path, "class_names").ravel())
        if values.dtype.kind == "U" or not np.array_equal(values, np.arange(len(class_names))):
            what = f"has {len(class_names)} names, but the labels have {len(values)} values that must be 0, 1, ..."
            raise DataError(what, f"{path}: class_names", "name every class, and none without samples")
    _check_names(class_names, str(path))
    splits = None
    if "splits" in names:
        splits = npz_array(path, "splits")
        if splits.shape != (len(values),) or splits.dtype.kind not in "iu" or not np.isin(splits, range(3)).all():
            what = f"is {splits.dtype} {splits.shape}, expected 0, 1 or 2 for each of {len(values)} classes"
            raise DataError(what, f"{path}: splits", "correct the array")
    return ClassSamples(samples, labels.astype(np.int64), class_names), splits


def _named(path: Path) -> set[str]:
    """The classes of a file that are called by words: numbers may mean other classes in another file."""
    if not path.exists():
        return set()
    names = npz_names(path)
    words = npz_array(path, "class_names" if "class_names" in names else "labels")
    return {str(word) for word in np.unique(words)} if words.dtype.kind == "U" else set()


def _check_finite(samples: NDArray[Any], where: str) -> None:
    """Raises DataError where a float32 sample is not."""
    if samples.dtype.kind != "f":
        return
    for start in range(0, len(samples), AT_ONCE):
        part = samples[start : start + AT_ONCE]
        finite = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite.all():
            what = f"has numbers that are not finite, first in sample {start + int(finite.argmin())}"
            raise DataError(what, where, "leave such samples out, or mend them")


def _check_names(names: tuple[str, ...], where: str) -> None:
    """Raises DataError where two classes could not be told apart, or a name cannot be printed."""
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"has two classes called {repeated!r}", where, "name every class otherwise")
    hidden = next((name for name in names if not name.isprintable()), None)
    if hidden is not None:
        raise DataError(f"has a class called {hidden!r}", where, "use letters, digits and marks alone")


def _samples(array: NDArray[Any], where: str) -> NDArray[Any]:
    """As (N, C, H, W), (N, C, L) or (N, C): views only."""
    if array.dtype == np.float32 and array.ndim in (2, 3):
        return array
    if array.dtype == np.uint8 and array.ndim == 3:
        return array[:, np.newaxis]
    if array.dtype == np.uint8 and array.ndim == 4:
        first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
        if first != last:
            return array if first else array.transpose(0, 3, 1, 2)
    what = f"is {array.dtype} {array.shape}, expected uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
    raise DataError(f"{what}, or float32 (N, C, L) or (N, C)", where, "correct the array")
