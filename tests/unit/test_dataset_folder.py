"""A user's own pictures: decoding, class folders, the splits and the cache below them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import cache, image_files
from pmeta.trainer.datasets.base import SPLITS, Split
from pmeta.trainer.datasets.cache import cache_folder, cached, file_states
from pmeta.trainer.datasets.class_splits import classes_of
from pmeta.trainer.datasets.folder import Folder
from pmeta.trainer.datasets.image_files import Encoded, decode
from pmeta.trainer.datasets.npz import Npz

pytestmark = pytest.mark.unit

ALL = (0.0, 0.0, 1.0)  # of the classes are for testing
NOISE = np.random.default_rng(0).integers(0, 256, (6, 7), np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


def png(pixels: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, "PNG", **options)
    return stream.getvalue()


# --- splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 5, 10, 100, 379])
def test_classes_are_divided_without_rest_or_overlap(count: int) -> None:
    parts = [classes_of(split, count, (0.64, 0.16, 0.2)) for split in SPLITS]
    assert sorted(chain(*parts)) == list(range(count))
    assert parts == [classes_of(split, count, (0.64, 0.16, 0.2)) for split in SPLITS]
    for part, share in zip(parts, (0.64, 0.16, 0.2), strict=True):
        assert abs(len(part) - share * count) <= 1
    assert classes_of("test", count, (0.0, 0.0, 1.0)) == list(range(count))
    assert classes_of("val", count, (0.5, 0.0, 0.5)) == []


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (0.5, 0.5, 0.5), (1.5, -0.5, 0.0)])
@pytest.mark.parametrize("kind", [Npz, Folder])
def test_shares_must_add_up(kind: Any, shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="three numbers"):
        kind(shares=shares)


# --- pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "WEBP", "GIF"])
def test_colours_keep_their_order_and_place(form: str) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)  # a red corner at the upper left, a blue one at the lower right
    pixels[3, 3] = (0, 0, 255)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **({"lossless": True} if form == "WEBP" else {}))
    for content in (stream.getvalue(), memoryview(stream.getvalue()), pixels):
        np.testing.assert_array_equal(decode(Encoded(0, content, "test"), 4, 3), pixels.transpose(2, 0, 1))
    grey = decode(Encoded(0, stream.getvalue(), "test"), 4, 1)
    assert grey.shape == (1, 4, 4) and grey[0, 0, 0] == 76 and grey[0, 3, 3] == 29  # luminance


def test_transparent_parts_are_white_and_16_bits_are_scaled() -> None:
    transparent = np.zeros((2, 2, 4), np.uint8)
    transparent[0, 0, 3] = 255
    np.testing.assert_array_equal(decode(Encoded(0, png(transparent), "test"), 2, 1), [[[0, 255], [255, 255]]])
    deep = np.array([[0, 0x8000], [0xFFFF, 0x00FF]], np.uint16)
    np.testing.assert_array_equal(decode(Encoded(0, png(deep), "test"), 2, 1), [[[0, 128], [255, 0]]])


def test_a_photograph_is_turned_as_the_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    pixels = np.array([[255, 0], [0, 0]], np.uint8)
    np.testing.assert_array_equal(decode(Encoded(0, png(pixels, exif=exif), "t"), 2, 1), [[[0, 255], [0, 0]]])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, [[0, 1], [2, 3]]),
        ((0, 0, 4, 4), [[0, 0], [0, 0]]),
        ((4, 0, 8, 4), [[1, 1], [1, 1]]),
        ((4, 4, 99, 99), [[3, 3], [3, 3]]),  # ends outside
        ((-9, -9, 0, 0), [[0, 0], [0, 0]]),  # lies outside
    ],
)
def test_box_is_cut_out(box: Any, expected: list[list[int]]) -> None:
    quadrants = np.kron(np.arange(4).reshape(2, 2), np.ones((4, 4))).astype(np.uint8) * 60
    sample = decode(Encoded(0, png(quadrants), "test", box), 2, 1)[0]
    assert (sample // 60).tolist() == expected


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_would_fill_the_memory_are_refused(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"test: (has 9000x9000 pixels|is no readable picture)"):
        decode(Encoded(0, huge_png(width, height), "test"), 28, 1)


@pytest.mark.parametrize("content", [b"", b"GIF89a", png(NOISE)[:60], b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"bird\.png: is no readable picture"):
        decode(Encoded(0, content, "bird.png"), 28, 1)


# --- class folders ---------------------------------------------------------------------------------------------


def write_classes(folder: Path, names: str, count: int = 2) -> None:
    """Class k's pictures are evenly 20 k bright."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.full((5, 9), 20 * (ord(name) - ord("a")), np.uint8)
            (folder / name / f"{number}.png").write_bytes(png(pixels))


def test_class_folders_are_divided_by_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", "abcdefghij")
    (tmp_path / "set" / "empty").mkdir()
    (tmp_path / "set" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "set" / "a" / "._0.png").write_text("no picture")
    names = ""
    for split in SPLITS:
        data = Folder(path=tmp_path / "set", size=3).load(split)
        assert data.shape == (1, 3, 3)
        for sample, label in zip(data.samples, data.labels, strict=True):
            assert (sample == 20 * (ord(data.class_names[label]) - ord("a"))).all()
        names += "".join(data.class_names)
    assert sorted(names) == list("abcdefghij")


def test_folders_per_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", "abc")
    write_classes(tmp_path / "test", "de", count=4)
    data = Folder(path=tmp_path, size=3, colour=True).load("test")
    assert data.samples.shape == (8, 3, 3, 3) and data.class_names == ("d", "e")
    assert Folder(path=tmp_path).load("train").shape == (1, 28, 28)
    with pytest.raises(DataError, match="has no val split"):
        Folder(path=tmp_path).load("val")


def test_a_class_that_is_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", "ab")
    write_classes(tmp_path / "val", "bc")
    with pytest.raises(DataError, match="has the class 'b' in train and in val"):
        Folder(tmp_path).load("train")


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not at hand"):
        Folder(path=tmp_path / "nowhere").load("train")
    with pytest.raises(DataError, match="holds no folders with pictures"):
        Folder(path=tmp_path).load("train")
    write_classes(tmp_path, "ab")
    (tmp_path / "a" / "0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"0\.png: is no readable picture"):
        Folder(path=tmp_path, shares=ALL).load("test")
    with pytest.raises(DataError, match="has no train split"):
        Folder(path=tmp_path, shares=ALL).load("train")
    for size in (0, 2000):
        with pytest.raises(ValueError, match=f"size is {size}"):
            Folder(size=size)


# --- the cache -------------------------------------------------------------------------------------------------


def test_many_pictures_are_decoded_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 3)
    write_classes(tmp_path / "set", "abc")
    data = Folder(path=tmp_path / "set", shares=ALL)
    first = data.load("test")
    monkeypatch.setattr(image_files, "decode", None)
    second = data.load("test")
    assert isinstance(second.samples, np.memmap)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.class_names == second.class_names == ("a", "b", "c")
    monkeypatch.undo()
    monkeypatch.setenv("PMETA_CACHE", str(cache_folder()))


def test_changed_files_and_options_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 3)
    write_classes(tmp_path / "set", "abc")
    old = Folder(path=tmp_path / "set", shares=ALL).load("test").samples.copy()
    assert Folder(path=tmp_path / "set", shares=ALL, size=5).load("test").shape == (1, 5, 5)
    changed = tmp_path / "set" / "a" / "0.png"
    changed.write_bytes(png(np.full((5, 9), 99, np.uint8)))
    os.utime(changed, ns=(0, 0))
    new = Folder(path=tmp_path / "set", shares=ALL).load("test").samples
    assert (old[0] == 0).all() and (new[0] == 99).all()
    assert len(list(cache_folder().iterdir())) == 3


def test_what_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 3)
    write_classes(tmp_path / "set", "abc")
    (tmp_path / "set" / "b" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="no readable picture"):
        Folder(path=tmp_path / "set", shares=ALL).load("test")
    assert list(cache_folder().iterdir()) == []


def test_a_damaged_entry_and_an_unwritable_cache_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 3)
    write_classes(tmp_path / "set", "abc")
    Folder(path=tmp_path / "set", shares=ALL).load("test")
    (entry,) = cache_folder().iterdir()
    (entry / "samples.npy").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged; delete this folder"):
        Folder(path=tmp_path / "set", shares=ALL).load("test")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written.*set PMETA_CACHE to another folder"):
        Folder(path=tmp_path / "set", shares=ALL).load("test")


def test_two_processes_may_make_one_entry() -> None:
    def make(folder: Path) -> None:
        (folder / "content").write_text("mine")
        if not (cache.entry_of("name", 1)).exists():
            cached("name", 1, lambda other: (other / "content").write_text("theirs") and None)

    assert (cached("name", 1, make) / "content").read_text() == "theirs"
    assert len(list(cache_folder().iterdir())) == 1


def test_file_states_tell_changes_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    state = file_states([path])
    assert state == file_states([path])
    os.utime(path, ns=(0, 0))
    assert state != file_states([path])


def test_splits_have_the_documented_order() -> None:
    assert SPLITS == ("train", "val", "test")
    split: Split = "test"
    assert SPLITS.index(split) == 2  # in .npz files
