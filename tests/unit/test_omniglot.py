"""Omniglot: both forms on disk, whole alphabets apart, ink 255, and what is wrong with a file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from pmeta.codegen.errors import ConfigError, DataError
from pmeta.trainer.datasets import omniglot
from pmeta.trainer.datasets.base import Split
from pmeta.trainer.datasets.omniglot import Omniglot

pytestmark = pytest.mark.unit

ALPHABETS = ("Gujarati", "Hebrew", "Balinese", "Japanese_(hiragana)", "Latin")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five alphabets of two characters with two drawings each."""
    monkeypatch.setattr(omniglot, "ALPHABETS", {"background": 5, "evaluation": 1})
    monkeypatch.setattr(omniglot, "CHARACTERS", {"background": 10, "evaluation": 2})
    monkeypatch.setattr(omniglot, "DRAWINGS", 2)


def apart(path: Path, **options: Any) -> Omniglot:
    return Omniglot(path, **{"validation": ALPHABETS[:2], "held_back": ALPHABETS[2:4]} | options)


def png(number: int) -> bytes:
    """One-bit, black ink on white: a block whose place is the number's."""
    picture = np.full((105, 105), 255, np.uint8)
    picture[:15, number * 15 : number * 15 + 15] = 0
    stream = io.BytesIO()
    Image.fromarray(picture).convert("1").save(stream, "PNG")
    return stream.getvalue()


def files(part: str, alphabets: tuple[str, ...] = ALPHABETS) -> dict[str, bytes]:
    return {
        f"images_{part}/{alphabet}/character0{character}/{drawing}.png": png(character + 2 * drawing)
        for alphabet in alphabets
        for character in (1, 2)
        for drawing in (0, 1)
    }


def write(folder: Path, content: dict[str, bytes], part: str, zipped: bool) -> None:
    if zipped:
        with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_alphabets_are_split(tmp_path: Path, zipped: bool) -> None:
    write(tmp_path, files("background"), "background", zipped)
    data = Omniglot(tmp_path, size=7, validation=ALPHABETS[:2], held_back=ALPHABETS[2:4], test="held-back")
    names = {split: data.load(split).class_names for split in ("train", "val", "test")}
    assert names["train"] == ("Latin/character01", "Latin/character02")
    assert {name.split("/")[0] for name in names["val"]} == {"Gujarati", "Hebrew"}
    assert {name.split("/")[0] for name in names["test"]} == {"Balinese", "Japanese_(hiragana)"}
    assert data.load("val").families == (0, 0, 1, 1)  # an alphabet is a family
    train = data.load("train")
    assert train.samples.shape == (4, 1, 7, 7) and train.labels.tolist() == [0, 0, 1, 1]
    where = [np.flatnonzero(sample[0, 0]).tolist() for sample in train.samples]
    assert where == [[1], [3], [2], [4]] and set(np.unique(train.samples)) == {0, 255}


def test_cropped_drawings_lie_in_the_middle_wherever_they_were(tmp_path: Path) -> None:
    write(tmp_path, files("background"), "background", True)
    samples = apart(tmp_path, size=omniglot.LEAST_CROP, crop=True).load("train").samples
    middle = np.zeros((omniglot.LEAST_CROP,) * 2, np.uint8)
    middle[9:24, 9:24] = 255  # the block of 15x15, at the scan's own scale: it is smaller than the least crop
    assert all(np.array_equal(sample[0], middle) for sample in samples)


@pytest.mark.parametrize(
    ("ink", "square"),
    [
        ((20, 40, 80, 50), (16, 11, 84, 79)),  # wide: 60 + 2 · 4 pixels, nothing is cut or stretched
        ((50, 20, 60, 80), (21, 16, 89, 84)),
        ((50, 50, 51, 51), (34, 34, 66, 66)),
        ((0, 0, 105, 105), (-4, -4, 109, 109)),
        (None, (-4, -4, 109, 109)),
    ],
    ids=["wide", "high", "dot", "everything", "no ink"],
)
def test_the_crop_is_a_square_about_the_ink(ink: Any, square: tuple[int, ...]) -> None:
    assert omniglot._about_the_ink(ink) == square


def test_an_alphabet_cannot_be_in_two_splits() -> None:
    with pytest.raises(ValueError, match="held_back has 'Hebrew', but must have none of validation"):
        Omniglot(validation=ALPHABETS[:2], held_back=ALPHABETS[1:3])


def test_the_splits_that_are_shipped_are_apart() -> None:
    data = Omniglot()
    assert len({*data.validation, *data.held_back}) == len(data.validation) + len(data.held_back) == 10


def test_characters_are_apart_whatever_their_alphabet(tmp_path: Path) -> None:
    write(tmp_path, files("background"), "background", True)
    splits: tuple[Split, ...] = ("train", "val", "test")
    whole, mixed = (
        [apart(tmp_path, test="held-back", apart=what).load(split).class_names for split in splits]
        for what in ("alphabets", "characters")
    )
    assert [len(names) for names in mixed] == [len(names) for names in whole] == [2, 4, 4]
    assert sorted(sum(mixed, ())) == sorted(sum(whole, ()))  # each in one split
    trained, *others = ({name.split("/")[0] for name in names} for names in mixed)
    assert any(trained & alphabets for alphabets in others)


def test_without_alphabets_to_validate_on_there_is_no_such_split(tmp_path: Path) -> None:
    write(tmp_path, files("background"), "background", True)
    data = apart(tmp_path, validation=())
    assert data.load("train").num_classes == 6
    with pytest.raises(DataError, match="has no val split"):
        data.load("val")


def test_the_evaluation_set_is_the_test_split(tmp_path: Path) -> None:
    write(tmp_path, files("background"), "background", True)
    with pytest.raises(DataError, match=r"images_evaluation\.zip: the evaluation set is missing; put "):
        apart(tmp_path).load("test")
    write(tmp_path, files("evaluation", ("Tibetan",)), "evaluation", True)
    assert apart(tmp_path).load("test").num_classes == 2


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not at hand; put images_background\.zip"):
        Omniglot(path=tmp_path / "none").load("train")
    archive = tmp_path / "images_background.zip"
    archive.write_bytes(b"no zip")
    with pytest.raises(DataError, match="is damaged"):
        apart(tmp_path).load("train")
    complete = files("background")
    write(tmp_path, dict(list(complete.items())[:-4]), "background", True)
    with pytest.raises(DataError, match=r"has 5 alphabets with 8 characters|has 4 alphabets"):
        apart(tmp_path).load("train")
    write(tmp_path, dict(list(complete.items())[:-1]), "background", True)
    with pytest.raises(DataError, match="Latin/character02 has 1 drawings, not 2"):
        apart(tmp_path).load("train")
    name = next(name for name in complete if "Latin" in name)
    for data, words in ((b"no picture", "is no readable picture"), (bytes(1 << 17), "is too large")):
        write(tmp_path, complete | {name: data}, "background", True)
        with pytest.raises(DataError, match=words):
            apart(tmp_path).load("train")
    write(tmp_path, complete, "background", True)
    with pytest.raises(ConfigError, match="has no alphabet 'Klingon'; use some of Balinese, "):
        apart(tmp_path, validation=("Klingon",)).load("val")
    with pytest.raises(DataError, match="has no val split"):
        apart(tmp_path, validation=()).load("val")
