"""The smartwatch set from tiny files in its format: who is in which split, windows apart in time, wrong files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import ConfigError, DataError
from pmeta.trainer.commands import model_tasks
from pmeta.trainer.commands.common import SplitName
from pmeta.trainer.datasets import smartwatch
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, SPLITS
from pmeta.trainer.datasets.episodes import TaskDrawer
from pmeta.trainer.datasets.registry import dataset
from pmeta.trainer.datasets.smartwatch import GAP, Smartwatch

pytestmark = pytest.mark.unit

EXERCISES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
MEMBER = "seglearn/data/watch_dataset.npy"


def moments_of(person: int, side: int, exercise: int, length: int) -> Any:
    """Acceleration x counts the moments in steps of a byte, modulo 100; y tells the exercise, z person and arm."""
    count = np.arange(length) % 100
    rows = [count / 32, np.full(length, exercise / 32), np.full(length, (2 * person + side) / 32)]
    return np.stack([*rows, *np.zeros((3, length))], axis=1)


def table() -> dict[str, Any]:
    keys = [(person, side, exercise) for exercise in range(7) for side in (1, 0) for person in range(1, 11)]
    lengths = [220 + 3 * number for number in range(len(keys))]
    return {
        "X": [moments_of(*key, length) for key, length in zip(keys, lengths, strict=True)],
        "y": np.array([exercise for _, _, exercise in keys]),
        "subject": np.array([person for person, _, _ in keys]),
        "side": np.array([float(side) for _, side, _ in keys]),
        "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
        "y_labels": EXERCISES,
    }


@pytest.fixture(scope="module")
def content() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(table(), dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.fixture
def file(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(smartwatch, "SHA256", hashlib.sha256(content).hexdigest())
    path = tmp_path / "watch_dataset.npy"
    path.write_bytes(content)
    return path


def test_every_person_is_tested_in_one_fold_and_never_trained_on_then(file: Path) -> None:
    tested = []
    for fold in range(5):
        data = Smartwatch(path=file, fold=fold, window=32)
        people = {split: {domain // 2 for domain in data.load(split).domains} for split in SPLITS}
        assert sorted(person for part in people.values() for person in part) == list(range(1, 11))
        assert [len(people[split]) for split in SPLITS] == [6, 2, 2]
        tested += sorted(people["test"])
    assert tested == list(range(1, 11))


def test_windows_of_support_and_query_are_apart_in_time(file: Path) -> None:
    data = Smartwatch(path=file, window=32, hop=8).load("test")
    assert data.samples.dtype == np.uint8 and data.shape == (6, 1, 32)
    assert data.roles is not None
    for label in range(data.num_classes):
        mine = data.labels == label
        begins = data.samples[mine, 0, 0, 0].astype(int) - 128  # moment, modulo 100
        support, query = begins[data.roles[mine] == ONLY_SUPPORT], begins[data.roles[mine] == ONLY_QUERY]
        assert len(support) + len(query) == mine.sum()
        np.testing.assert_array_equal(support, np.arange(len(support)) * 8 % 100)
        last_moment_seen = (len(support) - 1) * 8 + 31
        half = next(  # as the recording's length is not told
            half for half in range(110, 400) if half > last_moment_seen and (half + GAP) % 100 == query[0]
        )
        assert half - last_moment_seen <= 8
        np.testing.assert_array_equal(query, (half + GAP + np.arange(len(query)) * 8) % 100)
    np.testing.assert_array_equal(np.diff(data.samples[0, 0, 0].astype(int)), 1)


def test_a_task_is_one_arm_with_the_exercises_in_order(file: Path) -> None:
    data = Smartwatch(path=file, window=32).load("val")
    drawer, rng = TaskDrawer(data, ways=7, shots=2, queries=2), np.random.default_rng(0)
    arms = set()
    for _ in range(60):
        drawing = drawer.draw(rng)
        samples = data.samples[drawing.support]  # (7, 2, 6, 1, 32)
        np.testing.assert_array_equal(samples[:, 0, 1, 0, 0] - 128, np.arange(7))
        (arm,) = np.unique(samples[:, :, 2]) - 128
        arms.add(int(arm))
        names = [data.class_names[label] for label in drawing.classes]
        side = ("left", "right")[arm % 2]
        assert names == [f"{exercise}, person {arm // 2}, {side}" for exercise in EXERCISES]
    assert arms == {6, 7, 8, 9}


def test_bytes_are_steps_of_a_sensor() -> None:
    moments = np.array([[1, -1, 0.5, 1, -1, 0.1], [9, -9, 0, 9, -9, 0]], np.float64)
    expected = [[160, 255], [96, 0], [144, 128], [144, 255], [112, 0], [130, 128]]
    np.testing.assert_array_equal(smartwatch._in_bytes(moments), expected)


def written(place: str, folder: Path, content: bytes) -> Path:
    """The data set's file in one of the places where it may be."""
    if place == "wheel":
        path = folder / "seglearn-1.2.5-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(MEMBER, content)
        return path
    path = folder / "seglearn-1.2.5.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(f"seglearn-1.2.5/{MEMBER}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("place", ["wheel", "sdist"])
def test_other_places(file: Path, content: bytes, place: str, tmp_path: Path) -> None:
    folder = tmp_path / place
    folder.mkdir()
    path = written(place, folder, content)
    expected = Smartwatch(path=file, window=32).load("test")
    for where in (path, folder):
        found = Smartwatch(path=where, window=32).load("test")
        np.testing.assert_array_equal(found.samples, expected.samples)


def test_the_installed_package_is_found(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Installed:
        def locate_file(self, name: str) -> Path:
            assert name == MEMBER
            return file

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PMETA_DATA", raising=False)
    monkeypatch.setattr(smartwatch, "distribution", lambda _: Installed())
    assert Smartwatch().find() == file


def test_another_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "watch_dataset.npy"
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"watch_dataset\.npy: is not the file of seglearn 1\.2\.5; pip install"):
        Smartwatch(path=path).load("test")


def test_broken_packages_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none of the data set's files"):
        Smartwatch(path=tmp_path).load("test")
    for name in ("seglearn-1.2.5.tar.gz", "seglearn-1.2.5-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 or not")
        with pytest.raises(DataError, match="cannot be read"):
            Smartwatch(path=tmp_path / name).load("test")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("other", b"")
    with pytest.raises(DataError, match="cannot be read"):
        Smartwatch(path=tmp_path / "empty.whl").load("test")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fold": 5}, "data.fold is 5, but must be 0 to 4"),
        ({"window": 0}, "data.window is 0, but must be 1 to 400"),
        ({"hop": 0}, "data.hop is 0, but must be 1 to 400"),
    ],
)
def test_options(option: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset({"name": "smartwatch", **option}, "test")


def test_no_exercise_can_be_left_out_of_a_test(file: Path) -> None:
    """An output means one exercise: with fewer of them, tasks would call them by other numbers."""
    model = model_tasks.TrainedFor({"config": {"data": {"name": "smartwatch"}}}, 7, 1, (6, 1, 32))
    options = ["window=32"]
    name, tasks = model_tasks.test_tasks(model, None, file, options, SplitName.TEST, 7, 1, 1, 2, 0)
    assert name == "smartwatch" and len(tasks) == 2
    assert all(exercise in text for task in tasks for exercise, text in zip(EXERCISES, task.class_names, strict=True))
    with pytest.raises(ConfigError, match="no class can be left out"):
        model_tasks.test_tasks(model, None, file, options, SplitName.TEST, 3, 1, 1, 2, 0)
