"""CUB-200-2011 (Wah et al., 2011): 200 species of birds, photographs, RGB."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.datasets.base import ClassSamples, Dataset, Split
from pmeta.trainer.datasets.cache import file_states
from pmeta.trainer.datasets.class_folders import class_folders, read_picture
from pmeta.trainer.datasets.image_files import MAX_FILE_BYTES, Box, Encoded, Pictures, check_size, samples_of
from pmeta.trainer.datasets.split_forms import check_class_count, entry_name, from_hdf5

CLASS_COUNTS: Final[dict[Split, int]] = {"train": 100, "val": 50, "test": 50}
_SPECIES: Final = sum(CLASS_COUNTS.values())
_TREE: Final = "CUB_200_2011"
_MAX_TEXT_BYTES: Final = 8 << 20
_MAX_PICTURES: Final = 100_000
_TODO: Final = "take CUB_200_2011.tgz of data.caltech.edu/records/65de6-vp158"
_DAMAGE: Final = (OSError, EOFError, zlib.error, tarfile.TarError)

_Read = Callable[
    [list[str]], Iterator[tuple[str, bytes]]
]  # "species/file.jpg" names -> them with contents, in any order


@dataclass(frozen=True)
class Cub(Dataset):
    """The folder CUB_200_2011, CUB_200_2011.tgz (read as it is), or a folder with these or torchmeta's SPLIT_data.hdf5.

    Of the species in alphabetical order, number i (from 0) trains if i is even, validates if i % 4 is 1, and tests if
    it is 3 (Chen et al., 2019).
    """

    name: ClassVar[str] = "cub"
    title: ClassVar[str] = "200 species of birds, some 59 photographs each, RGB"
    how_to_get: ClassVar[str] = "put CUB_200_2011.tgz of data.caltech.edu/records/65de6-vp158 into data/cub"
    licence: ClassVar[str] = "non-commercial research (the photographers' rights)"

    size: int = 84  # pixels per side; pictures are stretched to a square
    crop: bool = False  # to the bird's bounding box; not for hdf5, which has none

    def __post_init__(self) -> None:
        check_size(self.size)

    def load(self, split: Split) -> ClassSamples:
        """(N, 3, size, size); species in alphabetical order."""
        place = self.located()
        if place.is_dir():
            data = from_hdf5(place, split, self.size)
            if data is not None and self.crop:
                raise DataError("torchmeta's files have no bounding boxes", str(place), "set crop = false, or " + _TODO)
            if data is not None:
                check_class_count(data, CLASS_COUNTS[split], split, "CUB", place)
                return data
        source = _source(place)
        files = [source] if source.is_file() else _tree_files(source)
        key = (file_states(files), split, self.crop)
        gather = _archive_pictures if source.is_file() else _tree_pictures
        return samples_of(entry_name(place, split), key, lambda: gather(source, split, self.crop), self.size)


def _source(place: Path) -> Path:
    """The tree or the archive at a place."""
    if place.is_file() or (place / "images").is_dir():
        return place
    candidates = (place / _TREE, place / f"{_TREE}.tgz")
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise DataError("holds neither the folder CUB_200_2011 nor CUB_200_2011.tgz", str(place), _TODO)
    return found


def _pictures(names: list[str], boxes: Mapping[str, Box] | None, split: Split, read: _Read, where: Path) -> Pictures:
    """The pictures of a split. names: "species/file.jpg" of all species."""
    species = sorted({name.split("/")[0] for name in names})
    if len(species) != _SPECIES:
        raise DataError(f"has {len(species)} species, CUB has {_SPECIES}", str(where), _TODO)
    rest = {"train": (0, 2), "val": (1,), "test": (3,)}[split]
    label_of = {name: label for label, name in enumerate(s for i, s in enumerate(species) if i % 4 in rest)}
    chosen = sorted(name for name in names if name.split("/")[0] in label_of)
    index_of = {name: index for index, name in enumerate(chosen)}
    missing = next((name for name in chosen if boxes is not None and name not in boxes), None)
    if missing is not None:
        raise DataError(f"has no bounding box for {missing}", str(where), _TODO)

    def encoded() -> Iterator[Encoded]:
        for name, content in read(chosen):
            yield Encoded(index_of[name], content, f"{where}: {name}", None if boxes is None else boxes[name])

    labels = np.array([label_of[name.split("/")[0]] for name in chosen], np.int64)
    return Pictures(labels, tuple(label_of), encoded)


def _boxes(images: bytes, boxes: bytes, where: Path) -> dict[str, Box]:
    """Name -> box, from images.txt ("1 species/file.jpg") and bounding_boxes.txt ("1 left top width height")."""
    try:
        names = dict(line.split(maxsplit=1) for line in images.decode().splitlines())
        found = {}
        for line in boxes.decode().splitlines():
            number, *numbers = line.split()
            left, top, width, height = map(float, numbers)
            if not np.isfinite([left, top, width, height]).all():
                raise ValueError("no box")
            found[names[number].strip()] = (left, top, left + width, top + height)
    except (ValueError, KeyError) as error:
        raise DataError("images.txt or bounding_boxes.txt is damaged", str(where), _TODO) from error
    return found


# --- the folder ------------------------------------------------------------------------------------------------


def _tree_files(tree: Path) -> list[Path]:
    pictures = [path for paths in class_folders(tree / "images").values() for path in paths]
    return pictures + [path for path in (tree / "images.txt", tree / "bounding_boxes.txt") if path.exists()]


def _tree_pictures(tree: Path, split: Split, crop: bool) -> Pictures:
    names = [f"{species}/{path.name}" for species, paths in class_folders(tree / "images").items() for path in paths]
    boxes = None
    if crop:
        texts = (_text(tree / "images.txt"), _text(tree / "bounding_boxes.txt"))
        boxes = _boxes(*texts, tree)

    def read(chosen: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in chosen:
            yield name, read_picture(tree / "images" / name)

    return _pictures(names, boxes, split, read, tree)


def _text(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_TEXT_BYTES)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), _TODO) from error


# --- the archive -----------------------------------------------------------------------------------------------


def _archive_pictures(archive: Path, split: Split, crop: bool) -> Pictures:
    """Reads the archive once for its names, and once for the pictures; nothing is unpacked to disk."""
    names, texts = [], {}
    for name, stream in _members(archive):
        if name.startswith("images/"):
            names.append(name.removeprefix("images/"))
        elif name in ("images.txt", "bounding_boxes.txt"):
            texts[name] = stream(_MAX_TEXT_BYTES)
        if len(names) > _MAX_PICTURES:
            raise DataError(f"holds more than {_MAX_PICTURES} pictures", str(archive), _TODO)
    if crop and len(texts) < 2:
        raise DataError("lacks images.txt or bounding_boxes.txt", str(archive), _TODO)
    boxes = _boxes(texts["images.txt"], texts["bounding_boxes.txt"], archive) if crop else None

    def read(chosen: list[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(chosen)
        for name, stream in _members(archive):
            short = name.removeprefix("images/")
            if short in wanted:
                yield short, stream(MAX_FILE_BYTES)

    return _pictures(names, boxes, split, read, archive)


def _members(archive: Path) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Name inside CUB_200_2011 and a reader of at most so many bytes, of each picture and text file."""
    try:
        with tarfile.open(archive, "r|*") as stream:
            for member in stream:
                folder, _, name = member.name.removeprefix("./").partition("/")
                is_picture = name.startswith("images/") and name.endswith(".jpg") and name.count("/") == 2
                hidden = name.rpartition("/")[2].startswith(".")
                if folder == _TREE and member.isfile() and not hidden and (is_picture or name.endswith(".txt")):
                    yield name, partial(_content, stream, member, archive)
    except _DAMAGE as error:
        raise DataError("is damaged", str(archive), _TODO) from error


def _content(stream: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, limit: int) -> bytes:
    if member.size > limit:
        raise DataError(f"{member.name} is larger than {limit >> 20} MiB", str(archive), _TODO)
    try:
        file = stream.extractfile(member)
        content = b"" if file is None else file.read()
    except _DAMAGE as error:
        raise DataError("is damaged", str(archive), _TODO) from error
    if len(content) != member.size:
        raise DataError(f"{member.name} is cut off", str(archive), _TODO)
    return content
