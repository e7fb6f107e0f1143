"""TieredImageNet (Ren et al., 2018): 608 classes of photographs whose splits differ in kind, RGB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ClassSamples, Dataset, Split
from pmeta.trainer.datasets.cache import file_states
from pmeta.trainer.datasets.image_files import Encoded, Pictures, check_size, samples_of
from pmeta.trainer.datasets.npz_arrays import npz_array
from pmeta.trainer.datasets.pickles import load_pickle
from pmeta.trainer.datasets.split_forms import (
    check_class_count,
    entry_name,
    from_folders,
    from_hdf5,
    from_npz,
    in_rgb,
    of_size,
    split_path,
)

CLASS_COUNTS: Final[dict[Split, int]] = {"train": 351, "val": 97, "test": 160}
_TODO: Final = "take the files of github.com/renmengye/few-shot-ssl-public"
_LABELS: Final = ("{}_labels.pkl", "tiered-imagenet-{}_labels.pkl")


@dataclass(frozen=True)
class TieredImageNet(Dataset):
    """A folder with any one of these, for the splits it has ("validation" will do for "val"):

    SPLIT_images_png.pkl and SPLIT_labels.pkl: encoded pictures; both with or without "tiered-imagenet-" in front.
    SPLIT_images.npz (blue first, as published) and SPLIT_labels.pkl.
    SPLIT_data.hdf5 and SPLIT_labels.json: as torchmeta stores it.
    SPLIT.npz: images, labels.
    SPLIT/CLASS/*.jpg: class folders.
    """

    name: ClassVar[str] = "tiered-imagenet"
    title: ClassVar[str] = "608 classes of photographs, some 1,280 each, RGB"
    how_to_get: ClassVar[str] = (
        "put {train,val,test}_images_png.pkl and ..._labels.pkl of github.com/renmengye/few-shot-ssl-public, "
        "or another form (docs/datasets.md), into data/tiered-imagenet"
    )
    licence: ClassVar[str] = "non-commercial research (ImageNet's terms)"

    size: int = 84  # pixels per side
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"  # as stored; auto: the pictures tell

    def __post_init__(self) -> None:
        check_size(self.size)

    def load(self, split: Split) -> ClassSamples:
        """(N, 3, size, size); a memory map of the cache, made on the first call, or of an uncompressed .npz."""
        folder = self.located()
        for form in (_from_png_pickle, _from_images_npz, from_hdf5, from_npz, from_folders):
            data = form(folder, split, self.size)
            if data is not None:
                check_class_count(data, CLASS_COUNTS[split], split, "TieredImageNet", folder)
                written_as: Literal["rgb", "bgr"] = "bgr" if form is _from_images_npz else "rgb"
                return in_rgb(data, written_as, self.channel_order)
        raise DataError(f"holds no {split} split in any known form", str(folder), self.how_to_get)


def _from_png_pickle(folder: Path, split: Split, size: int) -> ClassSamples | None:
    images = split_path(folder, split, "{}_images_png.pkl", "tiered-imagenet-{}_images_png.pkl")
    labels = split_path(folder, split, *_LABELS)
    if images is None or labels is None:
        return None
    return samples_of(
        entry_name(folder, split), file_states([images, labels]), lambda: _png_pickle(images, labels), size
    )


def _png_pickle(images: Path, labels: Path) -> Pictures:
    encoded = load_pickle(images)
    if not isinstance(encoded, list | np.ndarray) or not len(encoded):
        raise DataError("holds no list of pictures", str(images), _TODO)
    given, class_names = _read_labels(labels, len(encoded))

    def read() -> Iterator[Encoded]:
        for index, picture in enumerate(encoded):
            where = f"{images}: picture {index}"
            if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
                yield Encoded(index, picture.tobytes(), where)
            elif isinstance(picture, bytes | memoryview):
                yield Encoded(index, picture, where)
            else:
                raise DataError("is no array of bytes", where, _TODO)

    return Pictures(given, class_names, read)


def _from_images_npz(folder: Path, split: Split, size: int) -> ClassSamples | None:
    images, labels = split_path(folder, split, "{}_images.npz"), split_path(folder, split, *_LABELS)
    if images is None or labels is None:
        return None

    def gather() -> ClassSamples | Pictures:
        array = npz_array(images, "images")
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise DataError(f"is {array.dtype} {array.shape}, expected uint8 (N, H, W, 3)", f"{images}: images", _TODO)
        given, class_names = _read_labels(labels, len(array))
        return of_size(ClassSamples(array.transpose(0, 3, 1, 2), given, class_names), size, str(images))

    return samples_of(entry_name(folder, split), file_states([images, labels]), gather, size)


def _read_labels(path: Path, count: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of `count` pictures and the names of classes; there are two kinds of label files."""
    content = load_pickle(path)
    table: dict[Any, Any] = content if isinstance(content, dict) else {"labels": content}
    given = table.get("label_specific", table.get("labels"))
    try:
        labels = np.asarray(given)
    except ValueError as error:
        raise DataError("holds no labels", str(path), _TODO) from error
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(f"holds {labels.dtype} {labels.shape} labels, expected integers ({count},)", str(path), _TODO)
    values, contiguous = np.unique(labels, return_inverse=True)
    names = table.get("label_specific_str")
    if isinstance(names, list | np.ndarray) and np.array_equal(values, np.arange(len(names))):
        return contiguous.astype(np.int64), tuple(str(name) for name in names)
    return contiguous.astype(np.int64), tuple(f"class {value}" for value in values)
