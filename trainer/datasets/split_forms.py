"""Forms on disk that the well-known picture sets share: one file or folder per split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ClassSamples, Split
from pmeta.trainer.datasets.cache import file_states
from pmeta.trainer.datasets.class_folders import class_folders, pictures_of
from pmeta.trainer.datasets.image_files import Encoded, Pictures, samples_of
from pmeta.trainer.datasets.npz import read_npz
from pmeta.trainer.datasets.pickles import is_mapped
from pmeta.trainer.datasets.torchmeta_hdf5 import hdf5_pictures

Order = Literal["rgb", "bgr"]
Form = Callable[[Path, Split, int], ClassSamples | None]  # folder, split, size -> its samples; None: not in this form

_FILE_NAMES: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("train",),
    "val": ("val", "validation"),
    "test": ("test",),
}
_LOOKED_AT: Final = 1000  # pictures that tell whether colours are in the right order
_CLEAR_DIFFERENCE: Final = 4.0  # in mean brightness of red and blue, of 255


def split_path(folder: Path, split: Split, *patterns: str) -> Path | None:
    """Returns the first path in `folder` that exists, of patterns like "{}.csv" with the split's names in them."""
    candidates = (folder / pattern.format(name) for pattern in patterns for name in _FILE_NAMES[split])
    return next((path for path in candidates if path.exists()), None)


def entry_name(folder: Path, split: Split) -> str:
    """Returns what names of cache entries begin with."""
    return f"{folder.resolve().name}-{split}"


def from_hdf5(folder: Path, split: Split, size: int) -> ClassSamples | None:
    """SPLIT_data.hdf5 and SPLIT_labels.json, of torchmeta."""
    data, labels = split_path(folder, split, "{}_data.hdf5"), split_path(folder, split, "{}_labels.json")
    if data is None or labels is None:
        return None
    return samples_of(entry_name(folder, split), file_states([data, labels]), lambda: hdf5_pictures(data, labels), size)


def from_folders(folder: Path, split: Split, size: int) -> ClassSamples | None:
    """SPLIT/CLASS/*.jpg."""
    place = split_path(folder, split, "{}")
    files = class_folders(place) if place is not None and place.is_dir() else {}
    if not files:
        return None
    states = file_states(path for paths in files.values() for path in paths)
    return samples_of(entry_name(folder, split), states, lambda: pictures_of(files), size)


def from_npz(folder: Path, split: Split, size: int) -> ClassSamples | None:
    """SPLIT.npz with images and labels."""
    path = split_path(folder, split, "{}.npz")
    if path is None:
        return None
    return samples_of(
        entry_name(folder, split), file_states([path]), lambda: of_size(read_npz(path)[0], size, str(path)), size
    )


def of_size(data: ClassSamples, size: int, where: str) -> ClassSamples | Pictures:
    """Returns `data` if its pictures have this size and lie in a file, else the pictures to make samples from.

    Raises DataError unless they are RGB.
    """
    if len(data.shape) != 3 or data.shape[0] != 3:
        raise DataError(f"has samples of shape {data.shape}, not RGB pictures", where, "correct the file")
    if data.shape == (3, size, size) and is_mapped(data.samples):
        return data

    def read() -> Iterator[Encoded]:
        for index, picture in enumerate(data.samples):
            yield Encoded(index, picture.transpose(1, 2, 0), f"{where}: picture {index}")

    return Pictures(data.labels, data.class_names, read)


def in_rgb(data: ClassSamples, written_as: Order, order: Literal["auto"] | Order) -> ClassSamples:
    """Returns `data` with red first, as a view.

    written_as: how those who published this form stored it. order: what the user says; "auto" looks at the pictures:
    photographs are redder than blue on average (in ImageNet by 20 of 255), and only where these cannot tell, within 4
    of 255, `written_as` decides.
    """
    if order == "auto":
        shown = np.linspace(0, len(data.samples) - 1, min(len(data.samples), _LOOKED_AT)).astype(int)
        first, last = (float(data.samples[shown, channel].mean()) for channel in (0, 2))
        difference = first - last
        order = written_as if abs(difference) < _CLEAR_DIFFERENCE else "rgb" if difference > 0 else "bgr"
    if order == "rgb":
        return data
    return ClassSamples(data.samples[:, ::-1], data.labels, data.class_names)


def check_class_count(data: ClassSamples, expected: int, split: Split, title: str, where: Path) -> None:
    """Raises DataError unless a split has as many classes as published."""
    if data.num_classes != expected:
        what = f"has {data.num_classes} classes, the {split} split of {title} has {expected}"
        raise DataError(what, str(where), "check that this is the whole set, and the split")


def labels_by_class(class_indices: dict[str, NDArray[np.int64]], count: int, where: str) -> NDArray[np.int64]:
    """Returns the label of each of `count` pictures from the indices of each class, in the order of the classes.

    Raises DataError unless each picture is in exactly one class.
    """
    labels = np.full(count, -1, np.int64)
    empty = next((name for name, indices in class_indices.items() if not len(indices)), None)
    if empty is not None:
        raise DataError(f"has no pictures of {empty!r}", where, "download it again")
    total = sum(len(indices) for indices in class_indices.values())
    for label, indices in enumerate(class_indices.values()):
        if not np.array_equal(np.clip(indices, 0, count - 1), indices):
            raise DataError(f"refers to pictures beyond {count}", where, "download it again")
        labels[indices] = label
    if total != count or (labels < 0).any():
        raise DataError(f"assigns {total} pictures to classes, but there are {count}", where, "download it again")
    return labels
