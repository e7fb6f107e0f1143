"""MiniImageNet (Vinyals et al., 2016; the split of Ravi and Larochelle, 2017): 100 classes of photographs, RGB."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import check_regular
from pmeta.trainer.datasets.base import ClassSamples, Dataset, Split
from pmeta.trainer.datasets.cache import file_states
from pmeta.trainer.datasets.class_folders import pictures_of
from pmeta.trainer.datasets.image_files import check_size, samples_of
from pmeta.trainer.datasets.pickles import load_pickle
from pmeta.trainer.datasets.split_forms import (
    check_class_count,
    entry_name,
    from_folders,
    from_hdf5,
    from_npz,
    in_rgb,
    labels_by_class,
    of_size,
    split_path,
)

CLASS_COUNTS: Final[dict[Split, int]] = {"train": 64, "val": 16, "test": 20}
_PLACE: Final = "data/mini-imagenet"
_MAX_CSV_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class MiniImageNet(Dataset):
    """A folder with any one of these, for the splits it has ("validation" will do for "val"):

    mini-imagenet-cache-SPLIT.pkl: image_data, class_dict; of Python 2 or 3.
    SPLIT_data.hdf5 and SPLIT_labels.json: as torchmeta stores it.
    SPLIT.csv (Ravi and Larochelle) and the pictures it names in images/.
    SPLIT.npz: images, labels.
    SPLIT/CLASS/*.jpg: class folders.
    """

    name: ClassVar[str] = "mini-imagenet"
    title: ClassVar[str] = "100 classes of photographs, 600 each, RGB"
    how_to_get: ClassVar[str] = (
        "put mini-imagenet-cache-{train,validation,test}.pkl of zenodo.org/records/7978538, or another form "
        f"(docs/datasets.md), into {_PLACE}"
    )
    licence: ClassVar[str] = "non-commercial research (ImageNet's terms)"

    size: int = 84  # pixels per side
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"  # as stored; auto: the pictures tell

    def __post_init__(self) -> None:
        check_size(self.size)

    def load(self, split: Split) -> ClassSamples:
        """(N, 3, size, size); classes in alphabetical order, but for .npz in the order of their labels."""
        folder = self.located()
        forms = (_from_pickle, from_hdf5, _from_csv, from_npz, from_folders)
        data = next((found for form in forms if (found := form(folder, split, self.size)) is not None), None)
        if data is None:
            raise DataError(f"holds no {split} split in any known form", str(folder), self.how_to_get)
        check_class_count(data, CLASS_COUNTS[split], split, "MiniImageNet", folder)
        return in_rgb(data, written_as="rgb", order=self.channel_order)


def _from_pickle(folder: Path, split: Split, size: int) -> ClassSamples | None:
    path = split_path(folder, split, "mini-imagenet-cache-{}.pkl")
    if path is None:
        return None
    # Pickles of Python 2 are mapped as they are. In most of Python 3, the pictures are text, in UTF-8.
    return samples_of(
        entry_name(folder, split), file_states([path]), lambda: of_size(_read_pickle(path), size, str(path)), size
    )


def _read_pickle(path: Path) -> ClassSamples:
    """All samples, (N, 3, H, W)."""
    where, todo = str(path), "download it again"
    content = load_pickle(path)
    images, classes = (content.get(key) if isinstance(content, dict) else None for key in ("image_data", "class_dict"))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError("has no image_data, uint8 (N, H, W, 3)", where, todo)
    if not isinstance(classes, dict):
        raise DataError("has no class_dict", where, todo)
    indices = {str(name): _indices(value, f"{where}: {name}") for name, value in sorted(classes.items(), key=str)}
    labels = labels_by_class(indices, len(images), where)
    return ClassSamples(images.transpose(0, 3, 1, 2), labels, tuple(indices))


def _indices(value: Any, where: str) -> NDArray[np.int64]:
    """The indices of a class's pictures, from a list or an array."""
    try:
        indices = np.asarray(value)
        if indices.dtype.kind in "iu" and indices.ndim == 1:
            return indices.astype(np.int64)
    except (ValueError, TypeError, OverflowError):
        pass
    raise DataError("is no list of indices of pictures", where, "download it again")


def _from_csv(folder: Path, split: Split, size: int) -> ClassSamples | None:
    path = split_path(folder, split, "{}.csv", "split/{}.csv")
    if path is None:
        return None
    files: dict[str, list[Path]] = {}
    for file_name, label in sorted(_rows(path), key=lambda row: (row[1], row[0])):
        files.setdefault(label, []).append(folder / "images" / file_name)
    try:
        states = file_states([path, *(picture for pictures in files.values() for picture in pictures)])
    except OSError as error:
        raise DataError("is missing", str(error.filename), f"put it there, or correct {path.name}") from error
    return samples_of(entry_name(folder, split), states, lambda: pictures_of(files), size)


def _rows(path: Path) -> list[tuple[str, str]]:
    """(file name, class) of every line but the heading."""
    todo = "take the file of github.com/twitter-research/meta-learning-lstm"
    try:
        check_regular(path, _MAX_CSV_BYTES)
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("cannot be read", str(path), todo) from error
    if not rows or rows[0] != ["filename", "label"] or any(len(row) != 2 for row in rows):
        raise DataError("has not the columns 'filename' and 'label'", str(path), todo)
    outside = next((name for name, _ in rows[1:] if Path(name).name != name), None)
    if outside is not None:
        raise DataError(f"names {outside!r}, which is no plain file name", str(path), todo)
    return [(name, label) for name, label in rows[1:]]
