"""Omniglot (Lake et al., 2015): 1,623 handwritten characters of 50 alphabets, 20 drawings each.

Read from the public `images_background.zip` and `images_evaluation.zip`, or from the folders they unpack to:
alphabet/character/drawing.png, black ink on white. An alphabet lies in one split.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import ConfigError, DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.datasets.base import Background, ClassSamples, Dataset, Split

ALPHABETS = {"background": 30, "evaluation": 20}
CHARACTERS = {"background": 964, "evaluation": 659}
DRAWINGS = 20  # of each character
SIDE = 105  # pixels, as scanned
MARGIN = 4  # scanned pixels about the ink, where pictures are cropped to it
LEAST_CROP = 32  # scanned pixels per side: a dot stays a dot
MAX_PNG_BYTES = 1 << 16
PARTS_OF_NAME = 3  # alphabet/character/drawing.png

Part = Literal["background", "evaluation"]
Character = tuple[str, str]  # (alphabet, character)
Drawings = dict[Character, dict[str, bytes]]  # PNG files by name


@dataclass(frozen=True)
class Omniglot(Dataset):
    """Whole alphabets train, validate and test; pictures are turned to 255 = ink on 0 and averaged to `size` pixels."""

    name: ClassVar[str] = "omniglot"
    title: ClassVar[str] = "1,623 handwritten characters of 50 alphabets, grey"
    how_to_get: ClassVar[str] = (
        "put images_background.zip and images_evaluation.zip of github.com/brendenlake/omniglot into data/omniglot"
    )
    licence: ClassVar[str] = "MIT"
    split_options: ClassVar[tuple[str, ...]] = ("validation", "held_back", "apart")
    background: ClassVar[Background | None] = "dark"

    size: int = 28  # pixels per side
    crop: bool = False  # to a square about the ink, in place of the whole sheet
    # Background alphabets to validate on, and others kept from training: small ones, so that many characters are left.
    validation: tuple[str, ...] = (
        "Alphabet_of_the_Magi",
        "Arcadian",
        "Hebrew",
        "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    )
    held_back: tuple[str, ...] = (
        "Balinese",
        "Blackfoot_(Canadian_Aboriginal_Syllabics)",
        "Early_Aramaic",
        "Greek",
        "Inuktitut_(Canadian_Aboriginal_Syllabics)",
        "Tagalog",
    )
    test: Literal["evaluation", "held-back"] = "evaluation"  # what the test split is
    # What no two splits share. characters: as many for each split, drawn from all background alphabets.
    apart: Literal["alphabets", "characters"] = "alphabets"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= SIDE:
            raise ValueError(f"size is {self.size}, but must be 1 to {SIDE}")
        if both := sorted({*self.validation} & {*self.held_back}):
            raise ValueError(f"held_back has '{both[0]}', but must have none of validation")

    def load(self, split: Split) -> ClassSamples:
        """train: what is left of the background set; val: `validation`; test: the evaluation set, or `held_back`."""
        folder = self.located()
        if split == "test" and self.test == "evaluation":
            return self._samples(_drawings(_source(folder, "evaluation", self.how_to_get), "evaluation"))
        drawings = _drawings(_source(folder, "background", self.how_to_get), "background")
        split_of = self._splits(sorted(drawings))
        chosen = {key: drawings[key] for key in drawings if split_of[key] == split}
        if not chosen:
            raise self.no_split(split)
        return self._samples(chosen)

    def _splits(self, characters: list[Character]) -> dict[Character, Split]:
        """Of every background character."""
        alphabets = sorted({alphabet for alphabet, _ in characters})
        split_of: dict[str, Split] = dict.fromkeys(alphabets, "train")
        apart: dict[Split, tuple[str, ...]] = {"val": self.validation, "test": self.held_back}
        for split, those in apart.items():
            if unknown := sorted(set(those) - split_of.keys()):
                what = f"has no alphabet '{unknown[0]}'"
                raise ConfigError(what, "data set 'omniglot'", f"use some of {', '.join(alphabets)}")
            split_of |= dict.fromkeys(those, split)
        splits = [split_of[alphabet] for alphabet, _ in characters]
        if self.apart == "characters":
            splits = [splits[place] for place in np.random.default_rng(0).permutation(len(splits))]
        return dict(zip(characters, splits, strict=True))

    def _samples(self, drawings: Drawings) -> ClassSamples:
        chosen = sorted(drawings)
        files = [file for key in chosen for file in sorted(drawings[key].items())]
        pictures = [_picture(png, name, self.size, self.crop) for name, png in files]
        alphabets = sorted({alphabet for alphabet, _ in chosen})
        return ClassSamples(
            samples=np.stack(pictures)[:, None],
            labels=np.repeat(np.arange(len(chosen), dtype=np.int64), DRAWINGS),
            class_names=tuple(f"{alphabet}/{character}" for alphabet, character in chosen),
            families=tuple(alphabets.index(alphabet) for alphabet, _ in chosen),
        )


def _source(folder: Path, part: Part, how_to_get: str) -> Path:
    """The zip or folder of a part."""
    names = (f"images_{part}.zip", f"images_{part}")
    found = [place for place in (folder / names[0], folder / names[1]) if place.exists()]
    if found or folder.name in names:
        return found[0] if found else folder
    raise DataError(f"the {part} set is missing", str(folder / names[0]), how_to_get)


def _drawings(source: Path, part: Part) -> Drawings:
    """All drawings of a part, checked to be complete."""
    drawings: Drawings = {}
    for name, png in _files(source):
        alphabet, character, drawing = name.split("/")[-PARTS_OF_NAME:]
        drawings.setdefault((alphabet, character), {})[drawing] = png
    found = (len({alphabet for alphabet, _ in drawings}), len(drawings))
    expected = (ALPHABETS[part], CHARACTERS[part])
    if found != expected:
        what = f"has {found[0]} alphabets with {found[1]} characters, not {expected[0]} with {expected[1]}"
        raise DataError(what, str(source), "download it again")
    short = next((key for key, files in drawings.items() if len(files) != DRAWINGS), None)
    if short is not None:
        what = f"{'/'.join(short)} has {len(drawings[short])} drawings, not {DRAWINGS}"
        raise DataError(what, str(source), "download it again")
    return drawings


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if source.is_dir():
            for path in sorted(source.glob("*/*/*.png")):
                yield "/".join(path.parts[-PARTS_OF_NAME:]), read_file(path, MAX_PNG_BYTES)
            return
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".png") and info.filename.count("/") >= PARTS_OF_NAME - 1:
                    if info.file_size > MAX_PNG_BYTES:
                        raise DataError(f"{info.filename} is too large", str(source), "download it again")
                    yield info.filename, archive.read(info)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError("is damaged", str(source), "download it again") from error


def _picture(png: bytes, name: str, size: int, crop: bool) -> NDArray[np.uint8]:
    """(size, size), 255 = ink."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.size != (SIDE, SIDE):
                raise DataError(f"is {image.size}, not {SIDE}x{SIDE} pixels", name, "download Omniglot again")
            ink = Image.eval(image.convert("L"), lambda grey: 255 - grey)
            box = _about_the_ink(ink.getbbox()) if crop else (0, 0, SIDE, SIDE)
            small = ink.crop(box).resize((size, size), Image.Resampling.BOX)  # outside of the sheet there is none
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError("is no readable picture", name, "download Omniglot again") from error
    return np.asarray(small, np.uint8)


def _about_the_ink(box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    """A square (left, top, right, bottom) that holds the ink, given likewise; None: there is no ink."""
    left, top, right, bottom = box or (0, 0, SIDE, SIDE)
    side = max(right - left + 2 * MARGIN, bottom - top + 2 * MARGIN, LEAST_CROP)
    left, top = (left + right - side) // 2, (top + bottom - side) // 2
    return left, top, left + side, top + side
