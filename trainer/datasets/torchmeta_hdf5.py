"""Reads data sets as torchmeta stores them: SPLIT_data.hdf5 with a dataset per class, SPLIT_labels.json with names.

A dataset holds decoded pictures, uint8 (N, H, W, 3), or encoded ones, N byte strings of any length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.datasets.image_files import MAX_PIXELS, Encoded, Pictures

_GROUP: Final = "datasets"
_MAX_LABELS_BYTES: Final = 1 << 20
_MAX_PER_CLASS: Final = 100_000
_LARGEST_RATIO: Final = 1100  # of a compressed dataset to its bytes in the file; deflate reaches 1,032
_TODO: Final = "make it again with torchmeta"


def hdf5_pictures(data: Path, labels: Path) -> Pictures:
    """Returns the pictures of a split; classes in alphabetical order. Raises DataError if files are damaged."""
    names = _class_names(labels)
    with _open(data) as file:
        counts = [len(_dataset(file, name, data)) for name in names]

    def read() -> Iterator[Encoded]:
        index = 0
        with _open(data) as file:
            for name, count in zip(names, counts, strict=True):
                dataset = _dataset(file, name, data)
                for row in range(count):
                    where = f"{data}: {name}, picture {row}"
                    yield Encoded(index, _content(dataset, row, where), where)
                    index += 1

    return Pictures(np.repeat(np.arange(len(names), dtype=np.int64), counts), tuple(names), read)


def _class_names(path: Path) -> list[str]:
    try:
        names = json.loads(read_file(path, _MAX_LABELS_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("is missing or no JSON", str(path), _TODO) from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError("is no list of class names", str(path), _TODO)
    if len(set(names)) < len(names):
        raise DataError("names a class twice", str(path), _TODO)
    return sorted(names)


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError("needs h5py", str(path), "run: pip install h5py") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError("is no readable HDF5 file", str(path), _TODO) from error


def _dataset(file: Any, name: str, path: Path) -> Any:
    """The dataset of a class: in this very file (HDF5 can refer to others), and of a known form."""
    import h5py

    where = f"{path}: {name}"
    try:
        group = file[_GROUP]
        if "/" in name or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError("is missing", where, _TODO)
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise DataError("is no dataset of this file", where, _TODO)
    except (KeyError, OSError, RuntimeError, AttributeError) as error:
        raise DataError("is missing or damaged", where, _TODO) from error
    decoded = dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3
    encoded = h5py.check_vlen_dtype(dataset.dtype) == np.uint8 and dataset.ndim == 1
    if not (decoded or encoded) or not 1 <= len(dataset) <= _MAX_PER_CLASS:
        what = f"is {dataset.dtype} {dataset.shape}, expected uint8 (N, H, W, 3) or N encoded pictures"
        raise DataError(what, where, _TODO)
    stored = dataset.id.get_storage_size() * (1 if dataset.chunks is None else _LARGEST_RATIO)
    if dataset.nbytes > stored or (decoded and dataset.shape[1] * dataset.shape[2] > MAX_PIXELS):
        raise DataError(f"is larger than its part of the file, {dataset.shape}", where, _TODO)
    return dataset


def _content(dataset: Any, row: int, where: str) -> Any:
    """A decoded picture as an array, an encoded one as bytes."""
    try:
        content = dataset[row]
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise DataError("is damaged", where, _TODO) from error
    return content if dataset.ndim == 4 else content.tobytes()
