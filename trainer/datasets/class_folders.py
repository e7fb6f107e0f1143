"""Pictures in one folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.datasets.image_files import MAX_FILE_BYTES, Encoded, Pictures

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm"})


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Returns class name -> picture files, both sorted: of every folder in `folder` that directly holds pictures.

    Raises DataError if the folder cannot be read.
    """
    try:
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        files = {path.name: picture_files(path) for path in subfolders}
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(folder), "check the path") from error
    return {name: paths for name, paths in files.items() if paths}


def picture_files(folder: Path) -> list[Path]:
    """Returns the picture files directly in a folder, sorted; hidden files do not count."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def pictures_of(files: Mapping[str, Sequence[Path]]) -> Pictures:
    """Returns the pictures of these classes, labelled in the order of the classes."""
    paths = [path for members in files.values() for path in members]
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(members) for members in files.values()])

    def read() -> Iterator[Encoded]:
        for index, path in enumerate(paths):
            yield Encoded(index, read_picture(path), str(path))

    return Pictures(labels, tuple(files), read)


def read_picture(path: Path) -> bytes:
    """Returns the content of a picture file. Raises DataError if it cannot be read."""
    try:
        return read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "replace or remove it") from error
