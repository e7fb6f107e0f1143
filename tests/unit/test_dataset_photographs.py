"""MiniImageNet, TieredImageNet and CUB from tiny files, in every form in which they are passed around."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import image_files
from pmeta.trainer.datasets.base import SPLITS, ClassSamples, Split
from pmeta.trainer.datasets.cub import Cub
from pmeta.trainer.datasets.mini_imagenet import MiniImageNet
from pmeta.trainer.datasets.pickles import is_mapped
from pmeta.trainer.datasets.split_forms import in_rgb
from pmeta.trainer.datasets.tiered_imagenet import TieredImageNet

pytestmark = pytest.mark.unit

SIDE = 6  # instead of 84: the data sets' option `size`
PER_CLASS = 2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


def photographs(classes: int) -> NDArray[np.uint8]:
    """(classes · 2, 6, 6, 3), redder than blue; one class after the other."""
    noise = np.random.default_rng(classes).integers(0, 100, (classes * PER_CLASS, SIDE, SIDE, 3), np.uint8)
    return noise + np.array([120, 100, 80], np.uint8)


def names(classes: int) -> list[str]:
    return [f"n{number:08}" for number in range(classes)]


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def check(data: ClassSamples, classes: int, class_names: list[str] | None = None) -> None:
    """The data are `photographs` in their order."""
    np.testing.assert_array_equal(data.samples, photographs(classes).transpose(0, 3, 1, 2))
    assert data.labels.tolist() == np.repeat(np.arange(classes), PER_CLASS).tolist()
    assert data.class_names == tuple(class_names or names(classes))


# --- writers of the forms ----------------------------------------------------------------------------------------

Writer = Callable[[Path, str, int], None]  # folder, split, classes


def write_torchmeta_arrays(folder: Path, split: str, classes: int) -> None:
    with h5py.File(folder / f"{split}_data.hdf5", "w") as file:
        group = file.create_group("datasets")
        for name, pictures in zip(names(classes), np.split(photographs(classes), classes), strict=True):
            group.create_dataset(name, data=pictures)
    (folder / f"{split}_labels.json").write_text(json.dumps(names(classes)[::-1]))


def write_torchmeta_files(folder: Path, split: str, classes: int) -> None:
    with h5py.File(folder / f"{split}_data.hdf5", "w") as file:
        group = file.create_group("datasets")
        for name, pictures in zip(names(classes), np.split(photographs(classes), classes), strict=True):
            dataset = group.create_dataset(name, (len(pictures),), dtype=h5py.vlen_dtype(np.uint8))
            for index, picture in enumerate(pictures):
                dataset[index] = np.frombuffer(png(picture), np.uint8)
    (folder / f"{split}_labels.json").write_text(json.dumps(names(classes)))


def write_npz(folder: Path, split: str, classes: int) -> None:
    labels = np.repeat(np.arange(classes), PER_CLASS)
    np.savez(folder / f"{split}.npz", images=photographs(classes), labels=labels, class_names=np.array(names(classes)))


def write_folders(folder: Path, split: str, classes: int) -> None:
    for name, pictures in zip(names(classes), np.split(photographs(classes), classes), strict=True):
        (folder / split / name).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            (folder / split / name / f"{index}.png").write_bytes(png(picture))


def write_csv(folder: Path, split: str, classes: int) -> None:
    (folder / "images").mkdir(exist_ok=True)
    rows = ["filename,label"]
    for name, pictures in zip(names(classes), np.split(photographs(classes), classes), strict=True):
        for index, picture in enumerate(pictures):
            file_name = f"{split}-{name}{index}.jpg"
            (folder / "images" / file_name).write_bytes(png(picture))  # JPEG would not come back exactly
            rows.append(f"{file_name},{name}")
    (folder / f"{split}.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")


def class_dict(classes: int) -> dict[str, list[int]]:
    return {name: [PER_CLASS * k, PER_CLASS * k + 1] for k, name in enumerate(names(classes))}


def mini_pickle(folder: Path, split: str, content: Any, protocol: int = 4) -> None:
    (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content, protocol))


def write_pickle_3(folder: Path, split: str, classes: int) -> None:
    mini_pickle(folder, split, {"image_data": photographs(classes), "class_dict": class_dict(classes)}, 2)


def write_pickle_4(folder: Path, split: str, classes: int) -> None:
    mini_pickle(folder, split, {"image_data": photographs(classes), "class_dict": class_dict(classes)}, 4)


def string(content: bytes) -> bytes:
    """A `str` of Python 2."""
    return (
        b"U" + bytes([len(content)]) + content
        if len(content) < 256
        else b"T" + struct.pack("<i", len(content)) + content
    )


def write_pickle_2(folder: Path, split: str, classes: int) -> None:
    """As Python 2 wrote it: every string is bytes, sizes are longs."""
    images = photographs(classes)
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xff"
    shape = b"(" + b"".join(b"\x8a\x02" + struct.pack("<h", size) for size in images.shape) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"J\xff\xff\xff\xffK\x00tb" + b"\x89" + string(images.tobytes()) + b"tb"
    table = b"}("
    for name, indices in class_dict(classes).items():
        table += string(name.encode()) + b"](" + b"".join(b"K" + bytes([index]) for index in indices) + b"e"
    content = b"\x80\x02}(" + string(b"image_data") + array + string(b"class_dict") + table + b"uu."
    assert list(pickle.loads(content, encoding="latin1")["class_dict"]) == names(classes)
    (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(content)


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


# --- CUB ---------------------------------------------------------------------------------------------------------

SPECIES = [f"{number + 1:03}.Bird_{number}" for number in range(200)]


def bird(number: int, index: int) -> NDArray[np.uint8]:
    """Red grows with the species, blue tells pictures apart; green on the right half only."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[..., 0], picture[..., 2] = number, 10 * index
    picture[:, SIDE // 2 :, 1] = 200
    return picture


def write_cub(folder: Path, species: int = 200) -> Path:
    """The tree, with boxes around the left half."""
    tree = folder / "CUB_200_2011"
    pictures, boxes = [], []
    for number, name in enumerate(SPECIES[:species]):
        (tree / "images" / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            (tree / "images" / name / f"{index}.jpg").write_bytes(png(bird(number, index)))
            pictures.append(f"{len(pictures) + 1} {name}/{index}.jpg")
            boxes.append(f"{len(pictures)} 0.0 0.0 {SIDE / 2} {float(SIDE)}")
    (tree / "images.txt").write_text("\n".join(pictures) + "\n")
    (tree / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
    return tree


def archive_of(tree: Path) -> Path:
    path = tree.parent / "CUB_200_2011.tgz"
    junk = tarfile.TarInfo("CUB_200_2011/images/001.Bird_0/._0.jpg")
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.addfile(junk)
        archive.add(tree, "CUB_200_2011")
    return path


@pytest.fixture(scope="module")
def cub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same birds, in every form."""
    tree = write_cub(tmp_path_factory.mktemp("tree"))
    archive = archive_of(tree)
    moved = tmp_path_factory.mktemp("archive") / archive.name
    archive.rename(moved)
    hdf5 = tmp_path_factory.mktemp("hdf5")
    for split, rest in (("train", (0, 2)), ("val", (1,)), ("test", (3,))):
        chosen = [number for number in range(200) if number % 4 in rest]
        with h5py.File(hdf5 / f"{split}_data.hdf5", "w") as file:
            for number in chosen:
                dataset = file.create_dataset(f"datasets/{SPECIES[number]}", (PER_CLASS,), h5py.vlen_dtype(np.uint8))
                for index in range(PER_CLASS):
                    dataset[index] = np.frombuffer(png(bird(number, index)), np.uint8)
        (hdf5 / f"{split}_labels.json").write_text(json.dumps([SPECIES[number] for number in chosen]))
    return {
        **{"tree": tree, "folder with tree": tree.parent},
        **{"archive": moved, "folder with archive": moved.parent, "hdf5": hdf5},
    }


FORMS = ["tree", "folder with tree", "archive", "folder with archive", "hdf5"]


@pytest.mark.parametrize("form", FORMS)
def test_cub_in_every_form(cub: dict[str, Path], form: str) -> None:
    expected = {"train": range(0, 200, 2), "val": range(1, 200, 4), "test": range(3, 200, 4)}
    for split in SPLITS:
        data = Cub(path=cub[form], size=SIDE).load(split)
        assert data.class_names == tuple(SPECIES[number] for number in expected[split])
        for index, (sample, label) in enumerate(zip(data.samples, data.labels, strict=True)):
            picture = bird(expected[split][label], index % PER_CLASS)
            np.testing.assert_array_equal(sample, picture.transpose(2, 0, 1))


@pytest.mark.parametrize("form", FORMS[:4])
def test_cub_is_cropped_to_the_bird(cub: dict[str, Path], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_IN_MEMORY", 10)
    whole = Cub(path=cub[form], size=3).load("val")
    cropped = Cub(path=cub[form], size=3, crop=True).load("val")
    assert whole.samples[:, 1].max() == 200 and cropped.samples[:, 1].max() == 0
    np.testing.assert_array_equal(cropped.samples[:, 0], whole.samples[:, 0])
    assert is_mapped(whole.samples) and is_mapped(cropped.samples)


def test_torchmeta_has_no_boxes(cub: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="have no bounding boxes"):
        Cub(path=cub["hdf5"], crop=True).load("val")


def test_cub_with_a_species_missing_is_refused(tmp_path: Path) -> None:
    tree = write_cub(tmp_path, 199)
    for path in (tree, archive_of(tree)):
        with pytest.raises(DataError, match="has 199 species, CUB has 200"):
            Cub(path=path, size=SIDE).load("test")


def test_cub_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither the folder CUB_200_2011 nor"):
        Cub(path=tmp_path).load("test")


def test_cut_and_wrong_archives_are_refused(tmp_path: Path, cub: dict[str, Path]) -> None:
    path = tmp_path / "CUB_200_2011.tgz"
    whole = cub["archive"].read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], gzip.compress(b"no archive" * 1000)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"CUB_200_2011\.tgz: (is damaged|has \d+ species)"):
            Cub(path=path, size=SIDE).load("test")


def test_nothing_outside_the_archive_is_read(tmp_path: Path) -> None:
    """Links in an archive do not count as pictures."""
    path = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in SPECIES:
            link = tarfile.TarInfo(f"CUB_200_2011/images/{name}/0.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    with pytest.raises(DataError, match="has 0 species"):
        Cub(path=path, size=SIDE).load("test")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bounding_boxes.txt", "", "has no bounding box for 004"),
        ("bounding_boxes.txt", "1 2 3\n", "is damaged"),
        ("bounding_boxes.txt", "1 nan 0 1 1\n", "is damaged"),
        ("bounding_boxes.txt", "999 0 0 1 1\n", "is damaged"),
        ("images.txt", "1\n", "is damaged"),
        ("images.txt", None, "cannot be read"),
    ],
)
def test_wrong_boxes_are_refused(
    tmp_path: Path, cub: dict[str, Path], file: str, text: str | None, message: str
) -> None:
    tree = tmp_path / "CUB_200_2011"
    tree.mkdir()
    (tree / "images").symlink_to(cub["tree"] / "images")
    for name in ("images.txt", "bounding_boxes.txt"):
        (tree / name).write_bytes((cub["tree"] / name).read_bytes())
    if text is None:
        (tree / file).unlink()
    else:
        (tree / file).write_text(text)
    with pytest.raises(DataError, match=message):
        Cub(path=tree, size=SIDE, crop=True).load("test")
