"""Photographs of no particular thing, and the forms in which data sets of them are passed around: tiny files."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmeta.trainer.datasets.base import ClassSamples

SIDE = 6  # instead of 84: the data sets' option `size`
PER_CLASS = 2


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
