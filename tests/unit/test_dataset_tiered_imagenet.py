"""TieredImageNet from tiny files, in every form in which it is passed around; the order of colours."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import image_files
from pmeta.trainer.datasets.base import ClassSamples, Split
from pmeta.trainer.datasets.pickles import is_mapped
from pmeta.trainer.datasets.split_forms import in_rgb
from pmeta.trainer.datasets.tiered_imagenet import TieredImageNet
from tests.photographs import (
    PER_CLASS,
    SIDE,
    Writer,
    check,
    names,
    photographs,
    png,
    write_folders,
    write_npz,
    write_torchmeta_files,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


# --- TieredImageNet ----------------------------------------------------------------------------------------------

TIERED: dict[Split, int] = {"train": 351, "val": 97, "test": 160}


def tiered_labels(folder: Path, split: str, classes: int, prefix: str = "") -> None:
    labels = np.repeat(np.arange(classes, dtype=np.int32), PER_CLASS)
    content = {"label_specific": labels, "label_general": labels // 10, "label_specific_str": names(classes)}
    (folder / f"{prefix}{split}_labels.pkl").write_bytes(pickle.dumps(content, 2))


def write_png_pickle(folder: Path, split: str, classes: int, prefix: str = "") -> None:
    encoded = [np.frombuffer(png(picture), np.uint8).reshape(-1, 1) for picture in photographs(classes)]
    (folder / f"{prefix}{split}_images_png.pkl").write_bytes(pickle.dumps(encoded, 4))
    tiered_labels(folder, split, classes, prefix)


def write_prefixed(folder: Path, split: str, classes: int) -> None:
    write_png_pickle(folder, split, classes, "tiered-imagenet-")


def write_images_npz(folder: Path, split: str, classes: int) -> None:
    """As published: OpenCV's order of colours."""
    np.savez(folder / f"{split}_images.npz", images=photographs(classes)[..., ::-1])
    tiered_labels(folder, split, classes)


@pytest.mark.parametrize("write", [write_png_pickle, write_prefixed, write_images_npz, write_npz])
def test_tiered_imagenet_in_every_form(tmp_path: Path, write: Writer) -> None:
    for split, classes in TIERED.items():
        write(tmp_path, split, classes)
    for split, classes in TIERED.items():
        check(TieredImageNet(path=tmp_path, size=SIDE).load(split), classes)


def write_png_bytes(folder: Path, split: str, classes: int) -> None:
    """Plain bytes instead of arrays, as some copies have them."""
    encoded = [png(picture) for picture in photographs(classes)]
    (folder / f"{split}_images_png.pkl").write_bytes(pickle.dumps(encoded, 3))
    tiered_labels(folder, split, classes)


@pytest.mark.parametrize("write", [write_png_bytes, write_torchmeta_files, write_folders])
def test_tiered_imagenet_in_slower_forms(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "validation", 97)
    check(TieredImageNet(path=tmp_path, size=SIDE).load("val"), 97)


def test_tiered_imagenet_with_the_other_kind_of_labels(tmp_path: Path) -> None:
    write_images_npz(tmp_path, "val", 97)
    labels = np.repeat(np.arange(97), PER_CLASS) + 351  # numbered through all splits
    (tmp_path / "val_labels.pkl").write_bytes(pickle.dumps({"labels": labels.tolist()}, 4))
    check(TieredImageNet(path=tmp_path, size=SIDE).load("val"), 97, [f"class {k + 351}" for k in range(97)])


@pytest.mark.parametrize("write", [write_png_pickle, write_images_npz, write_torchmeta_files, write_npz, write_folders])
def test_tiered_imagenet_with_a_class_too_many_is_refused(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "val", 98)
    with pytest.raises(DataError, match="has 98 classes, the val split of TieredImageNet has 97"):
        TieredImageNet(path=tmp_path, size=SIDE).load("val")


def test_tiered_imagenet_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 10)
    for write in (write_png_pickle, write_images_npz):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder, "val", 97)
        assert is_mapped(TieredImageNet(path=folder, size=SIDE).load("val").samples)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["1"] * 194, None, "picture 0: is no array of bytes"),
        ([np.zeros(400)] * 194, None, "picture 0: is no array of bytes"),
        ([b"1"] * 194, None, "picture 0: is no readable picture"),
        ([np.zeros(4, np.uint8)] * 194, None, "picture 0: is no readable picture"),
        ([], None, "holds no list of pictures"),
        ({}, None, "holds no list of pictures"),
        (None, {"label_specific": np.zeros(3, int)}, r"holds int64 \(3,\) labels, expected integers \(194,\)"),
        (None, {"labels": ["a"] * 194}, "labels, expected integers"),
        (None, {"other": 1}, "labels, expected integers"),
        (None, [[1], [2, 3]], "holds no labels"),
    ],
)
def test_wrong_tiered_imagenet_pickles_are_refused(tmp_path: Path, images: Any, labels: Any, message: str) -> None:
    write_png_pickle(tmp_path, "val", 97)
    if images is not None:
        (tmp_path / "val_images_png.pkl").write_bytes(pickle.dumps(images, 4))
        if len(images) != 194:
            tiered_labels(tmp_path, "val", 0)
    if labels is not None:
        (tmp_path / "val_labels.pkl").write_bytes(pickle.dumps(labels, 4))
    with pytest.raises(DataError, match=message):
        TieredImageNet(path=tmp_path, size=SIDE).load("val")


# --- the order of colours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("written_as", ["rgb", "bgr"])
@pytest.mark.parametrize("swapped", [False, True])
def test_photographs_tell_the_order_of_their_colours(written_as: Any, swapped: bool) -> None:
    pictures = photographs(20).transpose(0, 3, 1, 2)
    labels = np.repeat(np.arange(20), PER_CLASS)
    data = ClassSamples(pictures[:, ::-1] if swapped else pictures, labels, tuple(names(20)))
    np.testing.assert_array_equal(in_rgb(data, written_as, "auto").samples, pictures)
    np.testing.assert_array_equal(in_rgb(data, written_as, "rgb").samples, data.samples)
    np.testing.assert_array_equal(in_rgb(data, written_as, "bgr").samples, data.samples[:, ::-1])


def test_grey_photographs_are_read_as_they_were_published() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 200, 200), np.uint8)
    data = ClassSamples(pictures, np.arange(4), ("a", "b", "c", "d"))
    np.testing.assert_array_equal(in_rgb(data, "rgb", "auto").samples, pictures)
    np.testing.assert_array_equal(in_rgb(data, "bgr", "auto").samples, pictures[:, ::-1])


def test_the_order_can_be_said(tmp_path: Path) -> None:
    write_png_pickle(tmp_path, "val", 97)
    data = TieredImageNet(path=tmp_path, size=SIDE, channel_order="bgr").load("val")
    np.testing.assert_array_equal(data.samples, photographs(97).transpose(0, 3, 1, 2)[:, ::-1])
