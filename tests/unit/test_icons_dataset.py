"""The icons data set: what is in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.icons import DATA_FILE, IconData, Split, load_icon_data, load_icons
from pmeta.trainer.datasets.icons.curation import load_curation
from pmeta.trainer.datasets.icons.package import LICENSES
from pmeta.trainer.datasets.icons.splits import split_concepts

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def data() -> IconData:
    return load_icon_data()


# --- the file ------------------------------------------------------------------------------------------------


def test_file_has_the_documented_size(data: IconData) -> None:
    assert data.images.shape == (17466, 28, 28)
    assert np.bincount(data.splits).tolist() == [242, 57, 80]
    assert len(data.set_prefixes) == 154
    assert DATA_FILE.stat().st_size < 2_500_000


def test_every_concept_has_20_to_60_drawings_and_at_most_two_of_a_set(data: IconData) -> None:
    per_concept = np.bincount(data.labels)
    assert per_concept.min() >= 20 and per_concept.max() == 60
    _, per_set = np.unique(np.stack([data.labels, data.set_of_drawing]), axis=1, return_counts=True)
    assert per_set.max() == 2


def test_no_image_appears_twice(data: IconData) -> None:
    assert len(np.unique(data.images.reshape(len(data.images), -1), axis=0)) == len(data.images)


def test_drawings_are_fitted_to_24_pixels_and_have_16_levels(data: IconData) -> None:
    assert set(np.unique(data.images)) <= set(range(0, 256, 17))
    margin = np.ones((28, 28), bool)
    margin[1:-1, 1:-1] = False
    assert not data.images[:, margin].any()
    assert (data.images.max(axis=(1, 2)) > 0).all()


def test_families_lie_in_one_split_and_match_the_curation(data: IconData) -> None:
    curated = load_curation().family_of_concept
    split_of_family: dict[str, int] = {}
    for concept, family, split in zip(data.concepts, data.families, data.splits, strict=True):
        assert curated[str(concept)] == str(family)
        assert split_of_family.setdefault(str(family), int(split)) == int(split)


def test_splits_are_those_of_the_code(data: IconData) -> None:
    families = dict(zip(data.concepts.tolist(), data.families.tolist(), strict=True))
    assert split_concepts(families) == dict(zip(data.concepts.tolist(), data.splits.tolist(), strict=True))


def test_splits_share_no_class_and_cover_all(data: IconData) -> None:
    names = [load_icons(split).class_names for split in get_args(Split)]
    assert sorted(sum(names, ())) == data.concepts.tolist()


def test_a_split_holds_its_concepts_drawings(data: IconData) -> None:
    test = load_icons("test")
    for label in (0, 40, 79):
        whole = data.labels == data.concepts.tolist().index(test.class_names[label])
        np.testing.assert_array_equal(test.samples[test.labels == label][:, 0], data.images[whole])


def test_every_set_is_attributed(data: IconData) -> None:
    text = DATA_FILE.with_name("ATTRIBUTION.md").read_text("utf-8")
    counts = np.bincount(data.set_of_drawing)
    rows = [line for line in text.splitlines() if "(`" in line]
    assert len(rows) == len(data.set_prefixes)
    for prefix, count in zip(data.set_prefixes, counts, strict=True):
        row = next(row for row in rows if f"(`{prefix}`)" in row)
        assert f"| {count} |" in row
        assert any(f"[{spdx}]" in row for spdx in LICENSES)


def damage(arrays: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (arrays | changes).items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": None},
        {"labels": np.zeros(17466, np.uint16)},
        {"images": np.zeros((17466, 28, 27), np.uint8)},
        {"images": np.zeros((17466, 28, 28), np.float32)},
        {"splits": np.full(379, 3, np.uint8)},
        {"set_of_drawing": np.full(17466, 154, np.uint8)},
        {"concepts": np.array([{}] * 379, object)},
    ],
)
def test_inconsistent_file_is_refused(data: IconData, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "icons.npz"
    np.savez(path, **damage(vars(data), **changes))
    with pytest.raises(DataError, match="damaged"):
        load_icons("train", path)


@pytest.mark.parametrize("position", [0, 1000, 1_000_000, -30])
def test_flipped_bytes_are_noticed(tmp_path: Path, position: int) -> None:
    content = bytearray(DATA_FILE.read_bytes())
    for offset in range(8):
        content[position + offset] ^= 0xFF
    path = tmp_path / "icons.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load_icons("train", path)


def test_short_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "icons.npz"
    with pytest.raises(DataError, match="missing"):
        load_icons("train", path)
    path.write_bytes(DATA_FILE.read_bytes()[:100_000])
    with pytest.raises(DataError, match="damaged"):
        load_icons("train", path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        load_icons("train", path)
