"""A model is not tested on classes that it was trained on, whatever the options of its data set are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import ConfigError
from pmeta.trainer.commands.common import SplitName
from pmeta.trainer.commands.model_tasks import TrainedFor
from pmeta.trainer.commands.model_tasks import test_tasks as tasks_of
from pmeta.trainer.datasets.hashing import data_hash
from pmeta.trainer.datasets.npz import Npz

pytestmark = pytest.mark.unit

ON_ALL = ["shares=[0, 0, 1]"]


def samples(path: Path, seed: int, names: str = "abcdefghij") -> Path:
    """Ten classes of four pictures; by default the first six train."""
    pictures = np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(path, images=pictures, labels=np.repeat(np.arange(10), 4), class_names=np.array(list(names)))
    return path


def model_of(path: Path) -> Any:
    record = {"config": {"data": {"name": "npz"}}, "data_sha256": data_hash(Npz(path).load("train"))}
    return TrainedFor(record, ways=2, shots=1, input_shape=(1, 8, 8))


def draw(model: Any, path: Path, options: list[str] | None, split: SplitName = SplitName.TEST) -> int:
    return len(tasks_of(model, None, path, options, split, 2, 1, 1, 3, 0)[1])


def test_options_that_put_trained_classes_to_the_test_are_refused(tmp_path: Path) -> None:
    mine = samples(tmp_path / "mine.npz", 0)
    model = model_of(mine)
    assert draw(model, mine, None) == draw(model, mine, ["shares=[0.64, 0.16, 0.2]"]) == 3
    assert draw(model, mine, ["shares=[0.5, 0.3, 0.2]"], SplitName.TRAIN) == 3
    with pytest.raises(ConfigError, match=r"--option shares: tests on 'a' and 5 other classes that .*; leave"):
        draw(model, mine, ON_ALL)


def test_data_that_grew_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = samples(tmp_path / "mine.npz", 0)
    model = model_of(mine)
    assert draw(model, mine, None) == 3 and capsys.readouterr().err == ""
    samples(mine, 0, "abcdefghiz")  # a class has another name: it still tests
    assert draw(model, mine, None) == 3 and capsys.readouterr().err == ""
    pictures = np.random.default_rng(0).integers(0, 256, (44, 8, 8), np.uint8)
    np.savez(mine, images=pictures, labels=np.repeat(np.arange(11), 4), class_names=np.array(list("Abcdefghijk")))
    assert draw(model, mine, None) == 3
    assert capsys.readouterr().err.startswith("note: these are not, or no longer, the data of the training; ")


def test_other_data_of_the_same_kind_are_tested_as_asked(tmp_path: Path) -> None:
    model, other = model_of(samples(tmp_path / "mine.npz", 0)), samples(tmp_path / "other.npz", 1)
    assert draw(model, other, ON_ALL) == 3


def test_training_data_that_are_not_at_hand_are_no_obstacle(tmp_path: Path) -> None:
    mine = samples(tmp_path / "test.npz", 0)
    model = model_of(mine)
    assert draw(model, tmp_path, ON_ALL) == 3  # a folder with a test set alone
