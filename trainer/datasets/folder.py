"""A user's own pictures, in one folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import SPLITS, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.cache import file_states
from pmeta.trainer.datasets.class_folders import class_folders, pictures_of
from pmeta.trainer.datasets.class_splits import DEFAULT_SHARES, check_apart, check_shares, classes_of
from pmeta.trainer.datasets.image_files import check_size, samples_of


@dataclass(frozen=True)
class Folder(Dataset):
    """PATH/train/CLASS/*.png, PATH/val/..., PATH/test/...; or PATH/CLASS/*.png, whose classes `shares` divides.

    PNG, JPEG, WebP, BMP, GIF and PPM; brightness is kept as it is. Classes are in alphabetical order.
    """

    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "your own pictures: one folder per class"
    how_to_get: ClassVar[str] = "put pictures into PATH/CLASS/ or PATH/train/CLASS/, and give --path PATH or data.path"
    licence: ClassVar[str] = "your own"
    split_options: ClassVar[tuple[str, ...]] = ("shares",)

    size: int = 28  # pixels per side; pictures are stretched to a square
    colour: bool = False  # RGB rather than grey
    shares: tuple[float, ...] = DEFAULT_SHARES  # of the classes that train, validate and test; for PATH/CLASS/*

    def __post_init__(self) -> None:
        check_shares(self.shares)
        check_size(self.size)

    def places(self) -> Iterator[Path]:
        """`path` alone."""
        if self.path is not None:
            yield self.path

    def load(self, split: Split) -> ClassSamples:
        """(N, 1 or 3, size, size)."""
        place = self.located()
        by_split = {name: class_folders(place / name) for name in SPLITS if (place / name).is_dir()}
        if any(by_split.values()):
            check_apart(by_split, str(place))
            files = by_split.get(split, {})
        else:
            everything = class_folders(place)
            if not everything:
                raise DataError("holds no folders with pictures", str(place), self.how_to_get)
            names = list(everything)
            files = {names[label]: everything[names[label]] for label in classes_of(split, len(names), self.shares)}
        if not files:
            raise self.no_split(split)
        states = file_states(path for paths in files.values() for path in paths)
        return samples_of(f"{self.name}-{split}", states, lambda: pictures_of(files), self.size, self.colour)
