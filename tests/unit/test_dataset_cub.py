"""CUB from a tiny tree, its archive and torchmeta's files."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets import image_files
from pmeta.trainer.datasets.base import SPLITS
from pmeta.trainer.datasets.cub import Cub
from pmeta.trainer.datasets.pickles import is_mapped
from tests.photographs import PER_CLASS, SIDE, png

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMETA_CACHE", str(tmp_path / "cache"))


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
