"""Animal-MNIST (Mohammadi, 2025): 10 kinds of animals, 28x28 grey. White shapes on a black ground (0).

284 of the 10,000 pictures are repeated. The PyPI package `animal_mnist` keeps them as two gzip-compressed pickles; its
code (which needs TensorFlow) is neither needed nor imported.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import Background, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.compressed import gunzip, read_maybe_gzip
from pmeta.trainer.datasets.pickles import loads_pickle

CLASS_NAMES: Final = ("Bear", "Bird", "Cat", "Cow", "Dog", "Elephant", "Giraffe", "Horse", "Sheep", "Zebra")
IMAGES_FILE: Final = "animal_data_version_3.gz"
LABELS_FILE: Final = "animal_label_version_3.gz"
_FOLDER_IN_PACKAGE: Final = "animal_mnist/data/Animal_MNIST"
_SIDE: Final = 28
_MAX_BYTES: Final = 64 << 20  # of each file, compressed and not


@dataclass(frozen=True)
class AnimalMnist(Dataset):
    """All ten classes are the test split: a target of models trained on other data."""

    name: ClassVar[str] = "animal-mnist"
    title: ClassVar[str] = "10 kinds of animals as white shapes, 28x28 grey; test split only"
    how_to_get: ClassVar[str] = (
        "pip install --no-deps animal-mnist, or put its wheel (pip download --no-deps animal-mnist) into "
        "data/animal-mnist"
    )
    licence: ClassVar[str] = "MIT"
    background: ClassVar[Background | None] = "dark"

    def places(self) -> Iterator[Path]:
        """A folder with the two files or the wheel, or the wheel itself; at last the installed package."""
        yield from super().places()
        if self.path is None:
            try:
                yield Path(str(distribution("animal_mnist").locate_file(_FOLDER_IN_PACKAGE)))
            except PackageNotFoundError:
                return

    def load(self, split: Split) -> ClassSamples:
        """test: (10000, 1, 28, 28), 1,000 of each class."""
        if split != "test":
            raise self.no_split(split)
        place = self.located()
        images, labels = (_array(place, name, self.how_to_get) for name in (IMAGES_FILE, LABELS_FILE))
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu" or images.shape != (len(labels), _SIDE, _SIDE):
            what = f"has {images.dtype} pictures of shape {images.shape} and {labels.dtype} labels of {labels.shape}"
            raise DataError(what, str(place), self.how_to_get)
        found = np.unique(labels)
        if not np.array_equal(found, np.arange(len(CLASS_NAMES))):
            what = f"has the labels {found.tolist()}, Animal-MNIST has 0 to {len(CLASS_NAMES) - 1}"
            raise DataError(what, str(place), self.how_to_get)
        return ClassSamples(images[:, np.newaxis], labels.astype(np.int64), CLASS_NAMES)


def _array(place: Path, name: str, how_to_get: str) -> NDArray[Any]:
    """The array in a file of this name, in a folder or a wheel."""
    wheels = sorted(place.glob("animal_mnist-*.whl")) if place.is_dir() else [place]
    if wheels and not (place / name).is_file():
        content = _from_wheel(wheels[-1], name, how_to_get)
    else:
        content = read_maybe_gzip(place / name, _MAX_BYTES)
    array = loads_pickle(content, f"{place}: {name}")
    if not isinstance(array, np.ndarray):
        raise DataError("holds no array", f"{place}: {name}", how_to_get)
    return array


def _from_wheel(wheel: Path, name: str, how_to_get: str) -> bytes:
    where = f"{wheel}: {name}"
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(f"{_FOLDER_IN_PACKAGE}/{name}")
            if member.file_size > _MAX_BYTES:
                raise DataError(f"is larger than {_MAX_BYTES >> 20} MiB", where, how_to_get)
            return gunzip(archive.read(member), _MAX_BYTES, where)
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("cannot be read", where, how_to_get) from error
