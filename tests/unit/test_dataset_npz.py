"""A user's own data as an .npz file."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import npz_arrays
from pmeta.trainer.datasets.base import SPLITS
from pmeta.trainer.datasets.cache import cache_folder
from pmeta.trainer.datasets.npz import Npz
from pmeta.trainer.datasets.npz_arrays import npz_array

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


RNG = np.random.default_rng(0)
LABELS = np.tile(np.arange(10), 3)
GREY = RNG.integers(0, 256, (30, 6, 7), np.uint8)
RGB = RNG.integers(0, 256, (30, 6, 7, 3), np.uint8)
NOT_A_NUMBER = np.where(np.arange(30)[:, None] == 7, np.float32("nan"), np.ones((30, 4), np.float32))
ALL = (0.0, 0.0, 1.0)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": GREY}, GREY[:, None]),
        ({"images": RGB}, RGB.transpose(0, 3, 1, 2)),
        ({"images": np.asfortranarray(RGB)}, RGB.transpose(0, 3, 1, 2)),
        ({"images": RGB.transpose(0, 3, 1, 2)}, RGB.transpose(0, 3, 1, 2)),
        ({"samples": RGB[:, 0].astype(np.float32)}, RGB[:, 0].astype(np.float32)),
        ({"samples": GREY[:, 0].astype(np.float32)}, GREY[:, 0].astype(np.float32)),
    ],
)
def test_npz_shapes(tmp_path: Path, save: Any, arrays: dict[str, Any], expected: Any) -> None:
    path = tmp_path / "data.npz"
    save(path, labels=LABELS.astype(np.uint8), **arrays)
    data = Npz(path=path, shares=ALL).load("test")
    np.testing.assert_array_equal(data.samples, expected, strict=True)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.class_names == tuple("0123456789")


def test_npz_labels_may_be_any_numbers_or_words_and_have_names(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    words = np.array(["cat", "ant", "cat"])
    np.savez(path, images=GREY[:3], labels=words)
    data = Npz(path=path, shares=ALL).load("test")
    assert data.class_names == ("ant", "cat") and data.labels.tolist() == [1, 0, 1]
    np.savez(path, images=GREY[:3], labels=np.array([70, -5, 70]))
    assert Npz(path=path, shares=ALL).load("test").class_names == ("-5", "70")
    np.savez(path, images=GREY[:3], labels=np.array([1, 0, 1]), class_names=np.array(["ant", "cat"]))
    assert Npz(path=path, shares=ALL).load("test").class_names == ("ant", "cat")


def test_npz_is_divided_by_class(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=GREY, labels=LABELS)
    names = {split: Npz(path=path).load(split).class_names for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [6, 2, 2]
    assert sorted(chain(*names.values())) == list("0123456789")
    data = Npz(path=path).load("val")
    for sample, label in zip(data.samples, data.labels, strict=True):
        original = np.flatnonzero((sample[0] == GREY).all(axis=(1, 2)))[0]
        assert str(LABELS[original]) == data.class_names[label]


def test_npz_with_splits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=GREY, labels=LABELS, splits=np.array([0, 2] * 5, np.uint8))
    assert Npz(path=path).load("test").class_names == tuple("13579")
    with pytest.raises(DataError, match="has no val split"):
        Npz(path=path).load("val")


def test_npz_file_per_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=GREY, labels=LABELS)
    np.savez(tmp_path / "test.npz", images=GREY[:4], labels=LABELS[:4])
    assert Npz(path=tmp_path).load("train").num_classes == 10
    assert Npz(path=tmp_path).load("test").num_classes == 4
    with pytest.raises(DataError, match="has no val split"):
        Npz(path=tmp_path).load("val")
    with pytest.raises(DataError, match="is not at hand"):
        Npz().load("test")


def test_uncompressed_npz_is_mapped_and_a_large_compressed_one_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((8, 1, 1000, 1000), np.uint8)
    images[1] = 7
    np.savez(tmp_path / "plain.npz", images=images, labels=np.arange(8))
    np.savez_compressed(tmp_path / "packed.npz", images=images, labels=np.arange(8))
    monkeypatch.setattr(npz_arrays, "_IN_MEMORY", 1 << 20)
    for name in ("plain", "packed", "packed"):
        tracemalloc.start()
        data = Npz(path=tmp_path / f"{name}.npz", shares=ALL).load("test")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert isinstance(data.samples, np.memmap) and peak < 5_000_000
        np.testing.assert_array_equal(data.samples, images)
    assert len(list(cache_folder().iterdir())) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY}, "labels: is missing"),
        ({"labels": LABELS}, "samples: is missing"),
        ({"images": GREY, "labels": LABELS[:-1]}, "labels: is int64"),
        ({"images": GREY, "labels": LABELS / 2}, "labels: is float64"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "labels: is int64"),
        ({"images": GREY.astype(np.int64), "labels": LABELS}, "images: is int64"),
        ({"images": RGB[..., :2], "labels": LABELS}, "images: is uint8"),
        ({"images": np.zeros((30, 3, 5, 3), np.uint8), "labels": LABELS}, "images: is uint8"),
        ({"samples": RGB.astype(np.float32), "labels": LABELS}, "samples: is float32"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array(["a"])}, "class_names: has 1 names"),
        ({"images": GREY, "labels": LABELS, "splits": np.array([0, 1])}, "splits: is int64"),
        ({"images": GREY, "labels": LABELS, "splits": np.full(10, 3)}, "splits: is int64"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array([*"abcdefghia"])}, "two classes called 'a'"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array([*"abcdefghi\n"])}, r"a class called '\\n'"),
        ({"samples": NOT_A_NUMBER, "labels": LABELS}, "samples: has numbers that are not finite, first in sample 7"),
        ({"images": GREY, "labels": LABELS.astype(object)}, "labels: holds Python objects"),
    ],
)
def test_wrong_npz_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        Npz(path=path).load("train")


def test_a_class_that_is_in_two_files_is_refused(tmp_path: Path) -> None:
    """By words; the numbers of two files may mean other classes."""
    x = np.zeros((4, 2), np.float32)
    for split, labels in (("train", [0, 0, 1, 1]), ("test", [0, 0, 1, 1])):
        np.savez(tmp_path / f"{split}.npz", samples=x, labels=np.array(labels))
    assert Npz(tmp_path).load("test").num_classes == 2
    for split, words in (("train", "aabb"), ("test", "bbcc")):
        np.savez(tmp_path / f"{split}.npz", samples=x, labels=np.array(list(words)))
    for part in ("train", "test"):
        with pytest.raises(DataError, match="has the class 'b' in train and in test; give every class to one split"):
            Npz(tmp_path).load(part)  # type: ignore[arg-type]


def lying_member(shape: str, content: bytes = b"1234", method: int = zipfile.ZIP_STORED) -> bytes:
    """A .npz with an array `images` whose header says `shape`."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content
        archive.writestr("images.npy", array)
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", ["(5,)", "(1099511627776,)", "(-4,)", "(2, 2", "(4.0,)", "('a',)", "4" * 20_000])
def test_npz_headers_that_lie_take_no_memory(tmp_path: Path, shape: str, method: int) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(lying_member(shape, method=method))
    tracemalloc.start()
    with pytest.raises(DataError, match="images: is damaged"):
        npz_array(path, "images")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000  # Python's own parser takes some


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_shortened_and_scrambled_npz_are_refused_or_read(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "data.npz"
    save(path, images=GREY, labels=LABELS)
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError):
            Npz(path=path).load("train")
    local_header = bytearray(whole)
    local_header[28:30] = b"\xff\xff"  # an extra field that would end past the file
    path.write_bytes(local_header)
    with pytest.raises(DataError, match="is damaged"):
        npz_array(path, "images")


def test_encrypted_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=GREY, labels=LABELS)
    content = bytearray(path.read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):  # flags in the local header and in the directory
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        npz_array(path, "images")
