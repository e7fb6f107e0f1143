"""Task files: lossless, deterministic, and distrustful of what they read."""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.codegen.taskfile import Task, load_tasks, save_tasks

pytestmark = pytest.mark.unit


def task(number: int = 0, support: int = 4) -> Task:
    rng = np.random.default_rng(number)

    def samples(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, 1, 5, 6), dtype=np.uint8)

    names = ("größe", "b", "c d")
    labels = [np.arange(count, dtype=np.uint8) % 3 for count in (support, 6)]
    return Task(samples(support), labels[0], samples(6), labels[1], names, f"task {number}")


def numbers_task(shape: tuple[int, ...] = (6,), outputs: int = 2) -> Task:
    """Float samples that teach numbers."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    names = tuple(f"output {number}" for number in range(outputs))
    return Task(numbers(4, *shape), numbers(4, outputs), numbers(5, *shape), numbers(5, outputs), names, "numbers")


def test_round_trip(tmp_path: Path) -> None:
    """Also of tasks of different sizes and kinds."""
    tasks = [task(0), task(1, support=7), numbers_task(), numbers_task((3, 8), outputs=1)]
    save_tasks(tasks, tmp_path / "t.npz")
    loaded = load_tasks(tmp_path / "t.npz")
    assert len(loaded) == 4
    for mine, theirs in zip(tasks, loaded, strict=True):
        for field in fields(Task):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            assert np.array_equal(a, b) and type(a) is type(b)
    assert not loaded[0].support_x.flags.writeable


def test_same_tasks_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_tasks([task(0), task(1)], tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert np.load(tmp_path / "a.npz", allow_pickle=False)["1/support_x"].shape == (4, 1, 5, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support_y": np.array([0, 1, 2, 3], np.uint8)}, "has label 3, but 3 classes"),
        ({"support_y": np.zeros(3, np.uint8)}, "has labels of shape"),
        ({"query_x": np.zeros((6, 1, 5, 5), np.uint8)}, "alike"),
        ({"query_x": np.zeros((6, 1, 5, 6), np.float32)}, "samples must be uint8, or float32, all of them"),
        ({"query_x": np.zeros((6, 1, 5, 6), np.float64)}, "samples must be uint8, or float32, all of them"),
        ({"query_y": np.zeros((6, 3), np.float32)}, "in support and query set alike"),
        ({"query_y": np.zeros(6, np.int64)}, "in support and query set alike"),
        ({"support_x": np.zeros(4, np.uint8), "query_x": np.zeros(6, np.uint8)}, r"are not \(N, C, H, W\)"),
        ({"support_x": np.zeros((0, 1, 5, 6), np.uint8), "support_y": np.zeros(0, np.uint8)}, "no samples"),
        ({"class_names": ()}, "0 classes"),
    ],
)
def test_inconsistent_tasks_are_refused(change: dict, message: str) -> None:
    good = {field.name: getattr(task(), field.name) for field in fields(Task)}
    with pytest.raises(DataError, match=message):
        Task(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support_y": np.zeros((4, 3), np.float32)}, r"has targets of shape \(4, 3\) for 4 samples and 2 names"),
        ({"support_y": np.zeros((3, 2), np.float32)}, r"has targets of shape \(3, 2\)"),
        ({"support_y": np.zeros(4, np.float32)}, r"has targets of shape \(4,\)"),
        ({"query_y": np.full((5, 2), np.nan, np.float32)}, "has targets with numbers that are not finite"),
        ({"query_x": np.full((5, 6), np.inf, np.float32)}, "has samples with numbers that are not finite"),
    ],
)
def test_inconsistent_numbers_are_refused(change: dict, message: str) -> None:
    good = {field.name: getattr(numbers_task(), field.name) for field in fields(Task)}
    with pytest.raises(DataError, match=message):
        Task(**{**good, **change})


def rewrite(source: Path, target: Path, change: dict[str, bytes | None]) -> None:
    """Copy an archive with some entries replaced, or (None) left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change.get(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name in change.keys() - set(old.namelist()):
            new.writestr(name, change[name] or b"")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file that promises `shape`, followed by four bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(4)


@pytest.mark.parametrize(
    "change",
    [
        {"0/support_x.npy": None},
        {"0/extra.npy": npy(np.zeros(1, np.uint8))},
        {"2/name.npy": npy(np.zeros(1, np.uint8))},
        {"../evil.npy": b""},
        {"0/support_y.npy": npy(np.array([{"a": 1}], dtype=object))},
        {"0/support_y.npy": npy(np.zeros(4, np.int64))},
        {"0/support_y.npy": npy(np.zeros(4, ">f4"))},
        {"0/support_x.npy": npy(np.zeros((4, 1, 5, 6), np.float32))[:-4]},
        {"0/support_x.npy": npy(np.asfortranarray(np.zeros((4, 1, 5, 6), np.float32)))},
        {"0/name.npy": npy(np.zeros(4, np.float32))},
        {"0/support_y.npy": npy(np.zeros(4, np.uint8))[:-2]},
        {"0/support_y.npy": header_of((10**12,))},
        {"0/support_y.npy": header_of((-2, -2))},
        {"0/support_y.npy": header_of((2**63, 4))},
        {"0/support_y.npy": b"not an array"},
        {"0/name.npy": npy(np.array([0xFF, 0xFE], np.uint8))},
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: dict[str, bytes | None]) -> None:
    save_tasks([task()], tmp_path / "good.npz")
    rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", change)
    with pytest.raises(DataError):
        load_tasks(tmp_path / "bad.npz")


@pytest.mark.parametrize("length", [0, 10, 500])
def test_cut_off_files_are_refused(tmp_path: Path, length: int) -> None:
    save_tasks([task()], tmp_path / "t.npz")
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:length])
    with pytest.raises(DataError, match="damaged"):
        load_tasks(tmp_path / "t.npz")


def test_names_that_would_control_the_terminal_are_refused() -> None:
    for change in ({"name": "\x1b[2J"}, {"class_names": ("a\x1b]0;b\x07", "c")}):
        with pytest.raises(DataError, match="has a name with control characters") as caught:
            Task(**{**{field.name: getattr(task(), field.name) for field in fields(Task)}, **change})
        assert str(caught.value).isprintable()


def test_devices_and_encrypted_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a regular file"):
        load_tasks(Path("/dev/zero"))
    save_tasks([task()], tmp_path / "t.npz")
    data = bytearray((tmp_path / "t.npz").read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[6] |= 1  # the flag "encrypted" of the first entry, in both of its headers
    data[directory + 8] |= 1
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(DataError, match="is not a task file, or is damaged"):
        load_tasks(tmp_path / "t.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: cannot be read"):
        load_tasks(tmp_path / "none.npz")
