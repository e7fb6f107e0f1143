"""Icons: things of daily life as many designers drew them, 28x28 grey. See README.md beside this file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, get_args

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import Background, ClassSamples, Dataset, Split

DATA_FILE: Final = Path(__file__).with_name("icons.npz")
IMAGE_SIZE: Final = 28

_DTYPE_KINDS: Final = {
    "images": "u1",
    "labels": "u2",
    "concepts": "U",
    "families": "U",
    "splits": "u1",
    "set_prefixes": "U",
    "set_of_drawing": "u1",
    "icon_names": "U",
}


@dataclass(frozen=True)
class Icons(Dataset):
    """The shipped data set."""

    name: ClassVar[str] = "icons"
    title: ClassVar[str] = "379 things of daily life as many designers drew them, 28x28 grey"
    how_to_get: ClassVar[str] = "comes with pmeta"
    licence: ClassVar[str] = "MIT, Apache-2.0, ISC, CC0, OFL 1.1 and CC BY, see icons/ATTRIBUTION.md"
    background: ClassVar[Background | None] = "dark"

    def places(self) -> Iterator[Path]:
        """The shipped file."""
        yield self.path or DATA_FILE

    def load(self, split: Split) -> ClassSamples:
        """242 concepts to train, 57 to validate, 80 to test; by families of similar ones."""
        return load_icons(split, self.located())


@dataclass(frozen=True)
class IconData:
    """All of icons.npz: N drawings of `concepts`, from `set_prefixes`."""

    images: NDArray[np.uint8]  # (N, 28, 28): ink coverage, 255 = ink on 0 = background
    labels: NDArray[np.uint16]  # (N,): index into concepts
    concepts: NDArray[np.str_]  # sorted
    families: NDArray[np.str_]  # per concept; a family lies in one split
    splits: NDArray[np.uint8]  # per concept: 0 train, 1 val, 2 test
    set_prefixes: NDArray[np.str_]  # Iconify prefixes, as in ATTRIBUTION.md
    set_of_drawing: NDArray[np.uint8]  # (N,): index into set_prefixes
    icon_names: NDArray[np.str_]  # (N,): the drawing's name in its set

    def __post_init__(self) -> None:
        drawings, concepts = len(self.images), len(self.concepts)
        consistent = (
            self.images.shape == (drawings, IMAGE_SIZE, IMAGE_SIZE)
            and drawings > 0
            and self.labels.shape == self.set_of_drawing.shape == self.icon_names.shape == (drawings,)
            and self.concepts.shape == self.families.shape == self.splits.shape == (concepts,)
            and np.array_equal(np.unique(self.labels), np.arange(concepts))
            and int(self.set_of_drawing.max()) < len(self.set_prefixes)
            and int(self.splits.max()) < len(get_args(Split))
        )
        if not consistent:
            raise ValueError("arrays do not fit each other")


def load_icons(split: Split, path: Path = DATA_FILE) -> ClassSamples:
    """Returns one split as images (N, 1, 28, 28); classes are in alphabetical order.

    Raises DataError if the file is missing or damaged.
    """
    data = load_icon_data(path)
    everything = ClassSamples(
        samples=data.images[:, np.newaxis],
        labels=data.labels.astype(np.int64),
        class_names=tuple(data.concepts.tolist()),
    )
    return everything.subset(np.flatnonzero(data.splits == get_args(Split).index(split)).tolist())


def load_icon_data(path: Path = DATA_FILE) -> IconData:
    """Returns the whole data set with its origins. Raises DataError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return IconData(**{name: _read_array(archive, name) for name in _DTYPE_KINDS})
    except FileNotFoundError as error:
        raise DataError("the icons data set is missing", str(path), "reinstall pmeta-toolchain") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("the icons data set is damaged", str(path), "reinstall pmeta-toolchain") from error


def _read_array(archive: Any, name: str) -> NDArray[Any]:
    array: NDArray[Any] = archive[name]
    kind = _DTYPE_KINDS[name]
    if array.dtype.kind != kind[0] or (kind[1:] and array.dtype != np.dtype(kind)):
        raise ValueError(f"{name} has type {array.dtype}")
    return array
