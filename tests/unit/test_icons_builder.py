"""How icons.npz is made: names and sets that are chosen, drawings that are rendered, the file that is built."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.icons import IconData, load_icon_data
from pmeta.trainer.datasets.icons.build import build
from pmeta.trainer.datasets.icons.curation import Curation, load_curation
from pmeta.trainer.datasets.icons.names import normalise_name
from pmeta.trainer.datasets.icons.package import VERSION, is_usable
from pmeta.trainer.datasets.icons.render import Icon, render_icon
from pmeta.trainer.datasets.icons.selection import Drawing, distinct, lookalikes, without_conflicts

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def data() -> IconData:
    return load_icon_data()


# --- curation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trash", "trash"),
        ("ic-trash-24-filled", "trash"),
        ("baseline-home", "home"),
        ("calendar-20-regular", "calendar"),
        ("bell_outline_24px", "bell"),
        ("home2", "home"),
        ("add-one", "add"),
        ("chart-line", "chart-line"),
        ("chart-line-outline", "chart-line"),
        ("heart-broken-bold", "heart-broken"),
        ("arrow-down-0-1", "arrow-down-0"),
        ("user-plus-line-duotone", "user-plus"),
        ("outline", "outline"),
        ("24", "24"),
    ],
)
def test_normalise_name(name: str, expected: str) -> None:
    assert normalise_name(name) == expected


def test_curated_names_are_normalised() -> None:
    names = load_curation().concept_of_name
    assert [name for name in names if normalise_name(name) != name] == []


# A bank for coins is no bank, an ID card no SIM card, an extinguisher no fire; the others are marks added to a drawing.
WORDS_ACROSS_SPLITS = {"bank", "card", "fire", "check", "off", "open", "plus", "search"}


def test_concepts_that_share_a_word_share_a_split(data: IconData) -> None:
    splits_of_word: dict[str, set[int]] = {}
    for concept, split in zip(data.concepts.tolist(), data.splits.tolist(), strict=True):
        for word in concept.split("-"):
            splits_of_word.setdefault(word, set()).add(split)
    assert {word for word, splits in splits_of_word.items() if len(splits) > 1} == WORDS_ACROSS_SPLITS


def curation_of(**concept_of_name: str) -> Curation:
    families = {concept: concept for concept in concept_of_name.values()}
    return Curation(concept_of_name, families, frozenset(), frozenset())


def test_main_name_outweighs_aliases_and_aliases_must_agree() -> None:
    curation = curation_of(home="house", house="house", star="star")
    assert curation.concept_of(["home-filled", "star"]) == "house"
    assert curation.concept_of(["unknown", "house", "home"]) == "house"
    assert curation.concept_of(["unknown", "house", "star"]) is None
    assert curation.concept_of(["unknown"]) is None


def test_name_listed_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "concepts.toml"
    path.write_text('[exclude]\nsets = []\nicons = []\n[alone]\nhouse = ["home"]\nhut = ["home"]\n[family]\n')
    with pytest.raises(DataError, match="'home' is listed twice"):
        load_curation(path)


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, True),
        ({"license": {"spdx": "CC-BY-SA-4.0"}}, False),
        ({"license": {"spdx": "GPL-3.0"}}, False),
        ({"license": {}}, False),
        ({"palette": True}, False),
        ({"category": "Logos"}, False),
        ({"category": "Emoji"}, False),
    ],
)
def test_sets_are_monochrome_free_and_without_brands(change: dict[str, Any], usable: bool) -> None:
    info = {"palette": False, "license": {"spdx": "MIT"}, "category": "UI 24px"}
    assert is_usable(info | change) is usable


# --- rendering and selection ---------------------------------------------------------------------------------


def test_ink_is_fitted_whatever_the_padding() -> None:
    def square(x: float, y: float, size: float) -> Icon:
        return Icon(f'<rect x="{x}" y="{y}" width="{size}" height="{size}"/>', 0, 0, 24, 24)

    small, large = render_icon(square(3, 9, 8)), render_icon(square(0, 0, 24))
    expected = np.zeros((28, 28), np.uint8)
    expected[2:26, 2:26] = 255
    np.testing.assert_array_equal(small, expected)
    np.testing.assert_array_equal(large, expected)


def test_white_paint_and_empty_icons_are_no_ink() -> None:
    hole = '<path d="M0 0h24v24H0z"/><path fill="#fff" d="M6 6h12v12H6z"/>'
    image = render_icon(Icon(hole, 0, 0, 24, 24))
    assert image is not None and image[14, 14] == 0 and image[4, 14] == 255
    assert render_icon(Icon("", 0, 0, 24, 24)) is None
    assert render_icon(Icon('<rect width="1" height="1"/>', 0, 0, 24, 24)) is None


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (28, 28)).astype(np.uint8)


def test_near_duplicates_and_third_drawings_of_a_set_are_left_out() -> None:
    almost = noise(0).copy()
    almost[0, 0] ^= 64
    drawings = [Drawing("a", f"house-{seed}", "house", noise(seed)) for seed in range(4)]
    drawings += [Drawing("b", "house", "house", almost), Drawing("b", "house-2", "house", noise(9))]
    chosen = distinct(drawings, np.random.default_rng(0))
    assert sum(drawing.prefix == "a" for drawing in chosen) == 2
    assert sum(np.array_equal(drawing.image, image) for drawing in chosen for image in (noise(0), almost)) == 1


def test_a_bitmap_under_two_concepts_is_dropped_and_lookalikes_are_found() -> None:
    almost = noise(0).copy()
    almost[0, 0] ^= 64
    same = [Drawing("a", "lock", "lock", noise(0)), Drawing("b", "unlock", "unlock", noise(0))]
    other = [Drawing("c", "unlock", "unlock", almost), Drawing("d", "lock", "lock", noise(1))]
    assert without_conflicts(same + other) == other
    assert list(lookalikes([same[0], *other])) == [(0, 1)]


# --- the build -----------------------------------------------------------------------------------------------


def polygon(rng: np.random.Generator) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in rng.uniform(0, 24, (7, 2)))
    return f'<polygon points="{points}" fill="currentColor"/>'


def icon_set(prefix: str, rng: np.random.Generator, **info: Any) -> dict[str, Any]:
    names = ("home-outline", "star-24", "bell", "unheard-of")
    return {
        "prefix": prefix,
        "info": {
            "name": prefix.title(),
            "author": {"name": f"Author of {prefix}"},
            "license": {"spdx": "MIT", "url": "https://example.org/licence"},
            "palette": False,
        }
        | info,
        "icons": {name: {"body": polygon(rng)} for name in names},
        "aliases": {"house": {"parent": "unheard-of"}, "star": {"parent": "bell", "hFlip": True}},
        "width": 24,
        "height": 24,
    }


@pytest.fixture(scope="module")
def fake_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 usable sets and four that must not be used."""
    root = tmp_path_factory.mktemp("fake") / "package"
    (root / "json").mkdir(parents=True)
    rng = np.random.default_rng(0)
    sets = [icon_set(f"set{number:02}", rng) for number in range(25)]
    sets.append(icon_set("copyleft", rng, license={"spdx": "CC-BY-SA-4.0"}))
    sets.append(icon_set("colourful", rng, palette=True))
    sets.append(icon_set("brands", rng, category="Logos"))
    sets.append(icon_set("line-md", rng))
    for record in sets:
        (root / "json" / f"{record['prefix']}.json").write_text(json.dumps(record))
    (root / "collections.json").write_text(json.dumps({record["prefix"]: record["info"] for record in sets}))
    (root / "package.json").write_text(json.dumps({"name": "@iconify/json", "version": VERSION}))
    return root


def quiet_build(package: Path, out: Path) -> None:
    out.mkdir()
    build(package, out, Console(quiet=True))


def test_build_is_deterministic_and_reads_folder_and_archive_alike(fake_package: Path, tmp_path: Path) -> None:
    archive = tmp_path / "iconify-json.tgz"
    with tarfile.open(archive, "w:gz") as stream:
        stream.add(fake_package, "package")
    for name, source in (("one", fake_package), ("two", fake_package), ("three", archive)):
        quiet_build(source, tmp_path / name)
    for file in ("icons.npz", "ATTRIBUTION.md"):
        contents = {(tmp_path / name / file).read_bytes() for name in ("one", "two", "three")}
        assert len(contents) == 1
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"icons.npz", "ATTRIBUTION.md"}


def test_build_uses_the_usable_sets_only(fake_package: Path, tmp_path: Path) -> None:
    quiet_build(fake_package, tmp_path / "out")
    with np.load(tmp_path / "out" / "icons.npz", allow_pickle=False) as archive:
        assert archive["concepts"].tolist() == ["bell", "house", "star"]
        assert archive["set_prefixes"].tolist() == [f"set{number:02}" for number in range(25)]
        assert set(archive["icon_names"].tolist()) == {"home-outline", "star-24", "bell", "unheard-of"}
        # Two drawings of "house" per set (a name and an alias), one of the others: a mirrored alias is no name.
        assert np.bincount(archive["labels"]).tolist() == [25, 50, 25]
    assert "copyleft" not in (tmp_path / "out" / "ATTRIBUTION.md").read_text("utf-8")


def test_another_version_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "package"
    other.mkdir()
    (other / "collections.json").write_text("{}")
    (other / "package.json").write_text(json.dumps({"name": "@iconify/json", "version": "2.2.1"}))
    with pytest.raises(DataError, match=r"2\.2\.1"):
        quiet_build(other, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a tar archive"])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "package.tgz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable npm package"):
        quiet_build(path, tmp_path / "out")
    with pytest.raises(DataError, match="not a readable npm package"):
        quiet_build(tmp_path / "nowhere", tmp_path / "out2")
