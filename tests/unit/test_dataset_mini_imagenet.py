"""MiniImageNet from tiny files, in every form in which it is passed around; torchmeta's files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import image_files
from pmeta.trainer.datasets.base import Split
from pmeta.trainer.datasets.cub import Cub
from pmeta.trainer.datasets.mini_imagenet import MiniImageNet
from pmeta.trainer.datasets.pickles import is_mapped
from pmeta.trainer.datasets.tiered_imagenet import TieredImageNet
from tests.photographs import (
    SIDE,
    Writer,
    check,
    class_dict,
    mini_pickle,
    photographs,
    write_csv,
    write_folders,
    write_npz,
    write_pickle_2,
    write_pickle_3,
    write_pickle_4,
    write_torchmeta_arrays,
    write_torchmeta_files,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


# --- MiniImageNet ------------------------------------------------------------------------------------------------

MINI_FORMS: list[Writer] = [
    *(write_pickle_2, write_pickle_3, write_pickle_4),
    *(write_torchmeta_arrays, write_torchmeta_files, write_csv, write_npz, write_folders),
]
MINI: dict[Split, int] = {"train": 64, "val": 16, "test": 20}


@pytest.mark.parametrize("write", MINI_FORMS)
def test_mini_imagenet_in_every_form(tmp_path: Path, write: Writer) -> None:
    for split, classes in MINI.items():
        write(tmp_path, split, classes)
    for split, classes in MINI.items():
        check(MiniImageNet(path=tmp_path, size=SIDE).load(split), classes)


@pytest.mark.parametrize("write", [write_pickle_4, write_torchmeta_arrays, write_csv, write_npz, write_folders])
def test_val_may_be_called_validation(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "validation", 16)
    check(MiniImageNet(path=tmp_path, size=SIDE).load("val"), 16)
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"holds no {split} split in any known form"):
            MiniImageNet(path=tmp_path).load(split)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", MINI_FORMS)
def test_a_class_too_few_is_refused(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "train", 63)
    with pytest.raises(DataError, match="has 63 classes, the train split of MiniImageNet has 64"):
        MiniImageNet(path=tmp_path, size=SIDE).load("train")


@pytest.mark.parametrize("write", MINI_FORMS)
def test_pictures_are_resized(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "val", 16)
    data = MiniImageNet(path=tmp_path, size=3).load("val")
    blocks = photographs(16).reshape(-1, 3, 2, 3, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    assert np.abs(data.samples - blocks).max() <= 1  # areas are averaged


@pytest.mark.parametrize("write", [write_pickle_2, write_pickle_4, write_npz])
def test_what_can_be_mapped_is_not_copied(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "train", 64)
    assert is_mapped(MiniImageNet(path=tmp_path, size=SIDE).load("train").samples)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "write", [write_pickle_3, write_torchmeta_arrays, write_torchmeta_files, write_csv, write_folders]
)
def test_the_rest_is_kept_in_the_cache(tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 10)
    write(tmp_path, "train", 64)
    first = MiniImageNet(path=tmp_path, size=SIDE).load("train")
    monkeypatch.setattr(image_files, "decode", None)
    for data in (first, MiniImageNet(path=tmp_path, size=SIDE).load("train")):
        check(data, 64)
        assert is_mapped(data.samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "has no image_data"),
        ({"class_dict": class_dict(16)}, "has no image_data"),
        ({"image_data": photographs(16)}, "has no class_dict"),
        ({"image_data": photographs(16)[..., 0], "class_dict": class_dict(16)}, "has no image_data"),
        ({"image_data": photographs(16) / 255, "class_dict": class_dict(16)}, "has no image_data"),
        ({"image_data": photographs(16), "class_dict": {"a": "b"}}, "a: is no list of indices"),
        ({"image_data": photographs(16), "class_dict": {"a": [0.5]}}, "a: is no list of indices"),
        ({"image_data": photographs(16), "class_dict": {"a": [[1], [2, 3]]}}, "a: is no list of indices"),
        ({"image_data": photographs(16), "class_dict": {"a": []}}, "a: is no list of indices"),
        ({"image_data": photographs(16), "class_dict": {"a": [99]}}, "refers to pictures beyond 32"),
        ({"image_data": photographs(16), "class_dict": {"a": [-1]}}, "refers to pictures beyond 32"),
        ({"image_data": photographs(16), "class_dict": class_dict(15)}, "assigns 30 pictures to classes"),
        ({"image_data": photographs(16), "class_dict": class_dict(15) | {"z": [0, 1]}}, "assigns 32 pictures"),
    ],
)
def test_wrong_mini_imagenet_pickles_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    mini_pickle(tmp_path, "val", content)
    with pytest.raises(DataError, match=message):
        MiniImageNet(path=tmp_path, size=SIDE).load("val")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo must not run",)


def test_commands_in_pickles_are_refused(tmp_path: Path) -> None:
    mini_pickle(tmp_path, "val", {"image_data": Evil(), "class_dict": {}})
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.system"):
        MiniImageNet(path=tmp_path).load("val")
    (tmp_path / "train_images_png.pkl").write_bytes(pickle.dumps([Evil()]))
    (tmp_path / "train_labels.pkl").write_bytes(pickle.dumps({"labels": [0]}))
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.system"):
        TieredImageNet(path=tmp_path).load("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has not the columns"),
        ("a.jpg,x\n", "has not the columns"),
        ("filename,label\na.jpg\n", "has not the columns"),
        ("filename,label\na.jpg,x\n", r"images/a\.jpg: is missing"),
        ("filename,label\n../../secret.jpg,x\n", "which is no plain file name"),
        ("filename,label\n/etc/secret.jpg,x\n", "which is no plain file name"),
        ("filename,label\n\xff", "cannot be read"),
    ],
)
def test_wrong_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "val.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        MiniImageNet(path=tmp_path, size=SIDE).load("val")


def test_places_of_the_photograph_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PMETA_DATA", raising=False)
    for kind in (MiniImageNet, TieredImageNet, Cub):
        with pytest.raises(DataError, match=f"data set '{kind.name}': is not at hand; put .* into data/{kind.name}"):
            kind().load("test")
        with pytest.raises(ValueError, match="size is 0"):
            kind(size=0)


# --- torchmeta's files -------------------------------------------------------------------------------------------


def hdf5_refers_outside(folder: Path) -> None:
    with h5py.File(folder / "elsewhere.hdf5", "w") as file:
        file.create_dataset("secret", data=photographs(1))
    with h5py.File(folder / "val_data.hdf5", "r+") as file:
        del file["datasets"]["n00000000"]
        file["datasets"]["n00000000"] = h5py.ExternalLink(str(folder / "elsewhere.hdf5"), "secret")


def hdf5_stored_outside(folder: Path) -> None:
    (folder / "raw").write_bytes(bytes(1000))
    with h5py.File(folder / "val_data.hdf5", "r+") as file:
        del file["datasets"]["n00000000"]
        outside = [(str(folder / "raw"), 0, 216)]
        file["datasets"].create_dataset("n00000000", (2, SIDE, SIDE, 3), np.uint8, external=outside)


def hdf5_of(shape: tuple[int, ...], dtype: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / "val_data.hdf5", "r+") as file:
            del file["datasets"]["n00000000"]
            file["datasets"].create_dataset("n00000000", shape, dtype, chunks=True)

    return change


def hdf5_cut(folder: Path) -> None:
    path = folder / "val_data.hdf5"
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hdf5_refers_outside, "n00000000: is missing"),
        (hdf5_stored_outside, "n00000000: is no dataset of this file"),
        (hdf5_of((2, SIDE, SIDE, 3), np.float32), r"is float32 \(2, 6, 6, 3\), expected uint8"),
        (hdf5_of((2, SIDE, SIDE), np.uint8), r"is uint8 \(2, 6, 6\), expected uint8"),
        (hdf5_of((10**9, SIDE, SIDE, 3), np.uint8), "expected uint8"),
        (hdf5_of((2, 10**6, 10**6, 3), np.uint8), "is larger than its part of the file"),
        (hdf5_of((0, SIDE, SIDE, 3), np.uint8), "expected uint8"),
        (hdf5_cut, "no readable HDF5 file"),
        (lambda folder: (folder / "val_labels.json").write_text("{}"), "no list of class names"),
        (lambda folder: (folder / "val_labels.json").write_text("[1]"), "no list of class names"),
        (lambda folder: (folder / "val_labels.json").write_text('["a", "a"]'), "names a class twice"),
        (lambda folder: (folder / "val_labels.json").write_text('["a"]'), "a: is missing"),
        (lambda folder: (folder / "val_labels.json").write_text('["../datasets/n00000000"]'), "is missing"),
        (lambda folder: (folder / "val_labels.json").write_text("["), "missing or no JSON"),
        (lambda folder: (folder / "val_labels.json").write_text("[" * 100_000), "missing or no JSON"),
    ],
)
def test_wrong_torchmeta_files_are_refused(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    write_torchmeta_arrays(tmp_path, "val", 16)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        MiniImageNet(path=tmp_path, size=SIDE).load("val")
