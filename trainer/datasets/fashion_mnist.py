"""Fashion-MNIST (Xiao et al., 2017): 10 kinds of clothes, 28x28 grey. Bright clothes on a black ground (0)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import Background, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.idx import read_idx

DEBIAN_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_SIDE: Final = 28


@dataclass(frozen=True)
class FashionMnist(Dataset):
    """All ten classes are the test split: a target of models trained on other data."""

    name: ClassVar[str] = "fashion-mnist"
    title: ClassVar[str] = "10 kinds of clothes, 28x28 grey; test split only"
    how_to_get: ClassVar[str] = (
        "apt install dataset-fashion-mnist, or put the idx files of github.com/zalandoresearch/fashion-mnist "
        "into data/fashion-mnist"
    )
    licence: ClassVar[str] = "MIT"
    background: ClassVar[Background | None] = "dark"

    part: Literal["t10k", "train"] = "t10k"  # which files: 1,000 or 6,000 pictures of each class

    def places(self) -> Iterator[Path]:
        """The usual places, then the Debian package."""
        yield from super().places()
        if self.path is None:
            yield DEBIAN_FOLDER

    def load(self, split: Split) -> ClassSamples:
        """test: (N, 1, 28, 28), 10 classes."""
        if split != "test":
            raise self.no_split(split)
        folder = self.located()
        images = read_idx(self._file(folder, "images-idx3-ubyte"), dimensions=3)
        labels = read_idx(self._file(folder, "labels-idx1-ubyte"), dimensions=1)
        if images.shape != (len(labels), _SIDE, _SIDE):
            what = f"has pictures of shape {images.shape} with {len(labels)} labels, not (labels, {_SIDE}, {_SIDE})"
            raise DataError(what, str(folder), self.how_to_get)
        found = np.unique(labels)
        if not np.array_equal(found, np.arange(len(CLASS_NAMES))):
            what = f"has the labels {found.tolist()}, Fashion-MNIST has 0 to {len(CLASS_NAMES) - 1}"
            raise DataError(what, str(folder), self.how_to_get)
        return ClassSamples(images[:, np.newaxis], labels.astype(np.int64), CLASS_NAMES)

    def _file(self, folder: Path, kind: str) -> Path:
        """The file of a kind in `folder`, plain or compressed."""
        candidates = [folder / f"{self.part}-{kind}{suffix}" for suffix in ("", ".gz")]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise DataError("is missing, plain and as .gz", str(candidates[0]), self.how_to_get)
        return found
