"""Turns encoded pictures (PNG, JPEG, ...) into samples of one size: decoded once, then mapped from the cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.cache import cached, entry_of

MAX_FILE_BYTES: Final = 64 << 20  # of one encoded picture
MAX_PIXELS: Final = 1 << 26  # of one decoded picture: 67 megapixels
MAX_SIZE: Final = 1024  # pixels per side of a sample
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
_IN_MEMORY: Final = 1000  # pictures up to which decoding them again is quicker than a cache is worth
_AT_ONCE: Final = 256  # pictures decoded in parallel before any is stored
_NO_PICTURE: Final = (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, ZeroDivisionError)

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels


class Encoded(NamedTuple):
    """One picture, still encoded."""

    number: int  # among all pictures of the split
    content: bytes | memoryview | NDArray[np.uint8]  # of a file, or already decoded: (H, W, 3)
    where: str  # for errors
    box: Box | None = None  # the part to use; None: all


@dataclass(frozen=True)
class Pictures:
    """The pictures of a split: their labels, and how to go through them all."""

    labels: NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]  # by label
    read: Callable[[], Iterator[Encoded]]  # each of 0 .. N - 1 once, in any order


def samples_of(
    name: str, key: object, gather: Callable[[], Pictures | ClassSamples], size: int, colour: bool = True
) -> ClassSamples:
    """Returns pictures as uint8 (N, 3 or 1, size, size); more than 1,000 as a memory map of a file in the cache.

    Each picture is stretched to a square. name: begins the name of the cache entry. key: everything the pictures
    depend on but `size` and `colour` (files with their sizes and times of change, options). gather: lists the pictures,
    or returns samples that are ready; called only if the cache does not hold them. Raises DataError for pictures that
    cannot be read.
    """
    entry_key = ("pictures", key, size, colour)
    entry = entry_of(name, entry_key)
    if not entry.is_dir():
        pictures = gather()
        if isinstance(pictures, ClassSamples):
            return pictures
        shape = (len(pictures.labels), 3 if colour else 1, size, size)
        if len(pictures.labels) <= _IN_MEMORY:
            samples = np.empty(shape, np.uint8)
            _decode_into(samples, pictures, name)
            return ClassSamples(samples, pictures.labels, pictures.class_names)
        entry = cached(name, entry_key, lambda folder: _write(folder, pictures, shape, name))
    try:
        mapped = np.load(entry / "samples.npy", mmap_mode="r", allow_pickle=False)
        labels, names = (np.load(entry / f"{part}.npy", allow_pickle=False) for part in ("labels", "class_names"))
        return ClassSamples(mapped, labels, tuple(names.tolist()))
    except (OSError, ValueError, EOFError) as error:
        raise DataError("is damaged", str(entry), "delete this folder; it is made again") from error


def _write(folder: Path, pictures: Pictures, shape: tuple[int, ...], name: str) -> None:
    """Writes samples.npy, labels.npy and class_names.npy."""
    samples = np.lib.format.open_memmap(folder / "samples.npy", "w+", np.uint8, shape)
    _decode_into(samples, pictures, name)
    samples.flush()
    np.save(folder / "labels.npy", pictures.labels, allow_pickle=False)
    np.save(folder / "class_names.npy", np.array(pictures.class_names), allow_pickle=False)


def _decode_into(samples: NDArray[np.uint8], pictures: Pictures, name: str) -> None:
    """Fills `samples` (N, C, size, size), several pictures at a time; shows progress where there are many."""
    missing = np.ones(len(samples), bool)
    total, channels, size, _ = samples.shape
    quiet = total <= _IN_MEMORY
    progress = track(pictures.read(), f"Decoding {name}", total, console=Console(stderr=True), disable=quiet)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        while window := list(islice(progress, _AT_ONCE)):
            decoded = pool.map(lambda picture: decode(picture, size, channels), window)
            for picture, sample in zip(window, decoded, strict=True):
                samples[picture.number] = sample
                missing[picture.number] = False
    if missing.any():
        raise DataError(f"lacks {int(missing.sum())} of {total} pictures", f"data set '{name}'", "get it again")


def decode(picture: Encoded, size: int, channels: int) -> NDArray[np.uint8]:
    """Returns one picture as (channels, size, size): grey or RGB, transparent parts on white. Raises DataError."""
    from PIL import Image, ImageOps

    try:
        if isinstance(picture.content, np.ndarray):
            image = Image.fromarray(np.ascontiguousarray(picture.content))
        else:
            if len(picture.content) > MAX_FILE_BYTES:
                raise DataError(f"is larger than {MAX_FILE_BYTES >> 20} MiB", picture.where, "use smaller pictures")
            image = Image.open(io.BytesIO(picture.content), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
                what = f"has {image.width}x{image.height} pixels, more than {MAX_PIXELS >> 20} Mi"
                raise DataError(what, picture.where, "use smaller pictures")
            image = ImageOps.exif_transpose(image)  # photographs say how the camera was held
        if image.mode.startswith("I"):  # 16 bits; convert() would cut brightness off at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if picture.box is not None:
            image = image.crop(_inside(picture.box, image.size))
        if image.size != (size, size):
            shrinks = min(image.size) >= size
            method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR  # BOX averages areas
            image = image.resize((size, size), method)
    except (*_NO_PICTURE, Image.DecompressionBombError) as error:
        raise DataError("is no readable picture", picture.where, "replace or remove it") from error
    array = np.asarray(image, np.uint8)
    return array[np.newaxis] if channels == 1 else array.transpose(2, 0, 1)


def _inside(box: Box, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a box that lies in the image, in whole pixels, at least one wide and high."""
    left, top, right, bottom = (round(min(max(edge, -1.0), MAX_PIXELS)) for edge in box)
    width, height = image_size
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)


def check_size(size: int) -> None:
    """Raises ValueError unless `size` is a sensible number of pixels per side."""
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}, but must be 1 to {MAX_SIZE} pixels")
