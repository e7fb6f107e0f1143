"""Fashion-MNIST and Animal-MNIST from tiny files: every place and form, and every way in which files can be wrong."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import animal_mnist, fashion_mnist
from pmeta.trainer.datasets.animal_mnist import AnimalMnist
from pmeta.trainer.datasets.fashion_mnist import FashionMnist

pytestmark = pytest.mark.unit

LABELS = np.tile(np.arange(10), 2)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)


def idx(array: NDArray[Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path, images: bytes = idx(IMAGES), labels: bytes = idx(LABELS), part: str = "t10k") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def test_fashion_mnist_reads_plain_and_compressed_files(tmp_path: Path) -> None:
    data = FashionMnist(path=write_fashion(tmp_path)).load("test")
    np.testing.assert_array_equal(data.samples, IMAGES[:, None])
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.class_names[0] == "T-shirt/top" and data.class_names[9] == "Ankle boot"


def test_fashion_mnist_reads_the_training_files_as_test_split(tmp_path: Path) -> None:
    write_fashion(tmp_path, idx(255 - IMAGES), part="train")
    data = FashionMnist(path=tmp_path, part="train").load("test")
    np.testing.assert_array_equal(data.samples, 255 - IMAGES[:, None])


def test_fashion_mnist_is_found_in_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMETA_DATA", str(tmp_path / "all"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    assert FashionMnist().find() is None
    with pytest.raises(DataError, match="is not at hand; apt install dataset-fashion-mnist"):
        FashionMnist().load("test")
    for folder in ("debian", "data/fashion-mnist", "all/fashion-mnist"):  # later ones come before earlier ones
        write_fashion(tmp_path / folder)
        found = FashionMnist().find()
        assert found is not None and found.resolve() == tmp_path / folder
    assert FashionMnist(path=tmp_path / "elsewhere").find() is None


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"", idx(LABELS), "too short"),
        (idx(IMAGES)[:-1], idx(LABELS), "holds 15679 bytes, its header says 20x28x28"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 28), idx(LABELS), "holds 0 bytes"),
        (struct.pack(">HBB3I", 0, 13, 3, 1, 1, 1) + b"1234", idx(LABELS), "no idx file of bytes in 3 dimensions"),
        (idx(LABELS), idx(LABELS), "no idx file of bytes in 3 dimensions"),
        (b"\x1f\x8bnonsense", idx(LABELS), "damaged gzip"),
        (idx(IMAGES[:, :27]), idx(LABELS), r"pictures of shape \(20, 27, 28\) with 20 labels"),
        (idx(IMAGES), idx(LABELS[:-1]), r"pictures of shape \(20, 28, 28\) with 19 labels"),
        (idx(IMAGES), idx(LABELS % 9), r"has the labels \[0, 1, 2, 3, 4, 5, 6, 7, 8\], Fashion-MNIST has 0 to 9"),
        (idx(IMAGES), idx(LABELS + (LABELS == 9)), "has the labels"),
    ],
)
def test_wrong_fashion_mnist_files_are_refused(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FashionMnist(path=write_fashion(tmp_path, images, labels)).load("test")


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmeta.trainer.datasets.idx._MAX_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20))
    with pytest.raises(DataError, match="decompresses to more than 1 MiB"):
        FashionMnist(path=write_fashion(tmp_path, bomb)).load("test")


def test_missing_fashion_mnist_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte: is missing, plain and as \.gz; apt install"):
        FashionMnist(path=tmp_path).load("test")


# --- Animal-MNIST ----------------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    return gzip.compress(pickle.dumps(value, 4))


def folder_of(target: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (target / name).write_bytes(content)
    return target


def wheel_of(target: Path, files: dict[str, bytes]) -> Path:
    wheel = target / "animal_mnist-0.4-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("animal_mnist/__init__.py", "raise SystemExit('must not be imported')")
        for name, content in files.items():
            archive.writestr(f"animal_mnist/data/Animal_MNIST/{name}", content)
    return wheel


def folder_with_wheel(target: Path, files: dict[str, bytes]) -> Path:
    return wheel_of(target, files).parent


def animals(images: Any = IMAGES, labels: Any = LABELS) -> dict[str, bytes]:
    return {animal_mnist.IMAGES_FILE: packed(images), animal_mnist.LABELS_FILE: packed(labels)}


@pytest.mark.parametrize("form", [folder_of, wheel_of, folder_with_wheel])
def test_animal_mnist_reads_every_form(tmp_path: Path, form: Callable[[Path, dict[str, bytes]], Path]) -> None:
    data = AnimalMnist(path=form(tmp_path, animals())).load("test")
    np.testing.assert_array_equal(data.samples, IMAGES[:, None])
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.class_names == (
        *("Bear", "Bird", "Cat", "Cow", "Dog"),
        *("Elephant", "Giraffe", "Horse", "Sheep", "Zebra"),
    )


def test_the_installed_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PMETA_DATA", raising=False)
    assert AnimalMnist().find() is None
    with zipfile.ZipFile(wheel_of(tmp_path, animals())) as archive:
        archive.extractall(tmp_path / "site")
    metadata = tmp_path / "site" / "animal_mnist-0.4.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: animal_mnist\nVersion: 0.4\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert AnimalMnist().find() == tmp_path / "site" / "animal_mnist" / "data" / "Animal_MNIST"
    assert len(AnimalMnist().load("test").samples) == 20


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo must not run",)


@pytest.mark.parametrize("form", [folder_of, wheel_of])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (animals(images=IMAGES.astype(np.float32)), "has float32 pictures"),
        (animals(images=IMAGES[:, :20]), r"pictures of shape \(20, 20, 28\)"),
        (animals(images=IMAGES[:19]), r"pictures of shape \(19, 28, 28\)"),
        (animals(labels=LABELS % 9), "Animal-MNIST has 0 to 9"),
        (animals(labels=LABELS / 2), "float64 labels"),
        (animals(labels=[1, 2]), "holds no array"),
        (animals(images=Evil()), r"asks for (posix|nt)\.system"),
        ({animal_mnist.IMAGES_FILE: packed(IMAGES)}, "cannot be read"),
        (animals() | {animal_mnist.IMAGES_FILE: b"\x1f\x8bnonsense"}, "damaged gzip"),
        (animals() | {animal_mnist.IMAGES_FILE: b""}, "no pickle"),
    ],
)
def test_wrong_animal_mnist_files_are_refused(
    tmp_path: Path, form: Callable[[Path, dict[str, bytes]], Path], files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        AnimalMnist(path=form(tmp_path, files)).load("test")


def test_damaged_and_oversized_wheels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(tmp_path, animals())
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        AnimalMnist(path=wheel).load("test")
    content = io.BytesIO(whole)
    content.seek(200)
    content.write(bytes(range(100)))  # checksums no longer hold
    wheel.write_bytes(content.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        AnimalMnist(path=wheel).load("test")
    wheel.write_bytes(whole)
    monkeypatch.setattr(animal_mnist, "_MAX_BYTES", 1000)
    with pytest.raises(DataError, match="is larger than"):
        AnimalMnist(path=wheel).load("test")


@pytest.mark.parametrize("data", [FashionMnist(), AnimalMnist()], ids=lambda data: data.name)
@pytest.mark.parametrize("split", ["train", "val"])
def test_only_the_test_split_exists(data: Any, split: Any) -> None:
    with pytest.raises(DataError, match=f"has no {split} split"):
        data.load(split)
