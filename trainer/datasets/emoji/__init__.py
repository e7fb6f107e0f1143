"""Emoji: 32x32 RGB on white, each drawn by six vendors. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, SPLITS, Background, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.npz_arrays import npz_array

DATA_FILE: Final = Path(__file__).with_name("emoji.npz")
IMAGE_SIZE: Final = 32

# Icon sets by who drew them. All may be passed on with changes; share-alike sets (OpenMoji) are left out.
VENDORS: Final[dict[str, tuple[str, ...]]] = {
    "emojione": ("emojione", "emojione-monotone"),
    "google": ("noto", "noto-v1"),
    "microsoft": ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"),
    "mozilla": ("fxemoji",),
    "streamline": ("streamline-emojis",),
    "twitter": ("twemoji",),
}

_DTYPE_KINDS: Final = {
    "images": "u1",
    "labels": "u2",
    "emoji": "U",
    "families": "U",
    "splits": "u1",
    "set_prefixes": "U",
    "set_of_drawing": "u1",
    "icon_names": "U",
}


@dataclass(frozen=True)
class Emoji(Dataset):
    """The shipped data set, with one vendor's drawings held out."""

    name: ClassVar[str] = "emoji"
    title: ClassVar[str] = "660 emoji as six vendors draw them, 32x32 RGB; test queries by a vendor never seen"
    how_to_get: ClassVar[str] = "comes with pmeta"
    licence: ClassVar[str] = "MIT, Apache-2.0 and CC BY 4.0, see emoji/ATTRIBUTION.md"
    background: ClassVar[Background | None] = "light"

    # This vendor's drawings never train or validate, and are the only queries to test with.
    held_out: Literal["emojione", "google", "microsoft", "mozilla", "streamline", "twitter", "nobody"] = "google"

    def places(self) -> Iterator[Path]:
        """The shipped file."""
        yield self.path or DATA_FILE

    def load(self, split: Split) -> ClassSamples:
        """(N, 3, 32, 32); emoji in alphabetical order, those that the vendor held out did not draw left out of test."""
        data = load_emoji_data(self.located())
        everything = ClassSamples(
            samples=data.images.transpose(0, 3, 1, 2),
            labels=data.labels.astype(np.int64),
            class_names=tuple(data.emoji.tolist()),
            roles=self._roles(data) if split == "test" else None,
        )
        used = np.flatnonzero(data.splits == SPLITS.index(split))
        if self.held_out == "nobody":
            return everything.subset(used.tolist())
        held_out = self._is_held_out(data)
        if split == "test":
            used = np.intersect1d(used, data.labels[held_out])
            return everything.subset(used.tolist())
        seen = ClassSamples(everything.samples[~held_out], everything.labels[~held_out], everything.class_names)
        return seen.subset(used.tolist())

    def _is_held_out(self, data: EmojiData) -> NDArray[np.bool_]:
        """(N,)"""
        sets = np.flatnonzero(np.isin(data.set_prefixes, VENDORS.get(self.held_out, ())))
        return np.isin(data.set_of_drawing, sets)

    def _roles(self, data: EmojiData) -> NDArray[np.uint8] | None:
        if self.held_out == "nobody":
            return None
        return np.where(self._is_held_out(data), np.uint8(ONLY_QUERY), np.uint8(ONLY_SUPPORT))


@dataclass(frozen=True)
class EmojiData:
    """All of emoji.npz: N drawings of `emoji`, from `set_prefixes`."""

    images: NDArray[np.uint8]  # (N, 32, 32, 3): RGB on white
    labels: NDArray[np.uint16]  # (N,): index into emoji
    emoji: NDArray[np.str_]  # names, sorted
    families: NDArray[np.str_]  # per emoji; a family lies in one split
    splits: NDArray[np.uint8]  # per emoji: 0 train, 1 val, 2 test
    set_prefixes: NDArray[np.str_]  # Iconify prefixes, as in ATTRIBUTION.md
    set_of_drawing: NDArray[np.uint8]  # (N,): index into set_prefixes
    icon_names: NDArray[np.str_]  # (N,): the drawing's name in its set

    def __post_init__(self) -> None:
        drawings, count = len(self.images), len(self.emoji)
        consistent = (
            self.images.shape == (drawings, IMAGE_SIZE, IMAGE_SIZE, 3)
            and drawings > 0
            and self.labels.shape == self.set_of_drawing.shape == self.icon_names.shape == (drawings,)
            and self.emoji.shape == self.families.shape == self.splits.shape == (count,)
            and np.array_equal(np.unique(self.labels), np.arange(count))
            and int(self.set_of_drawing.max()) < len(self.set_prefixes)
            and int(self.splits.max()) < len(SPLITS)
        )
        if not consistent:
            raise ValueError("arrays do not fit each other")


def load_emoji_data(path: Path = DATA_FILE) -> EmojiData:
    """Returns the whole data set with its origins. Raises DataError if the file is missing or damaged."""
    try:
        arrays = {name: npz_array(path, name) for name in _DTYPE_KINDS}
        for name, kind in _DTYPE_KINDS.items():
            if arrays[name].dtype.kind != kind[0] or (kind != "U" and arrays[name].dtype != np.dtype(kind)):
                raise ValueError(f"{name} has type {arrays[name].dtype}")
        return EmojiData(**arrays)
    except (DataError, ValueError) as error:
        raise DataError("the emoji data set is missing or damaged", str(path), "reinstall pmeta-toolchain") from error
