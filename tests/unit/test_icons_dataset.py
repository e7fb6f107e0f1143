"""The icons data set: what is in the file, how it is built, and how episodes are drawn from it."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer, sample_episode
from pmeta.trainer.datasets.icons import DATA_FILE, IconData, Split, load_icon_data, load_icons
from pmeta.trainer.datasets.icons.build import build
from pmeta.trainer.datasets.icons.curation import Curation, load_curation
from pmeta.trainer.datasets.icons.names import normalise_name
from pmeta.trainer.datasets.icons.package import LICENSES, VERSION, is_usable
from pmeta.trainer.datasets.icons.render import Icon, render_icon
from pmeta.trainer.datasets.icons.selection import Drawing, distinct, lookalikes, without_conflicts
from pmeta.trainer.datasets.icons.splits import split_concepts
from pmeta.trainer.datasets.picture import draw_episode

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


# --- classes and episodes ------------------------------------------------------------------------------------


def numbered(class_sizes: list[int]) -> ClassSamples:
    """Images whose pixel values are their own index, in shuffled label order."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(class_sizes)), class_sizes))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(2, axis=2)
    return ClassSamples(images, labels.astype(np.int64), tuple(f"class {label}" for label in range(len(class_sizes))))


def test_class_samples_are_checked() -> None:
    good = numbered([2, 3])
    for images, labels, names in (
        (good.samples.astype(np.int32), good.labels, good.class_names),
        (good.samples[:, 0], good.labels, good.class_names),
        (good.samples, good.labels[:-1], good.class_names),
        (good.samples, good.labels.astype(np.int32), good.class_names),
        (good.samples, good.labels, ("only one",)),
        (good.samples, good.labels, ("a", "b", "without images")),
    ):
        with pytest.raises(ValueError):
            ClassSamples(images, labels, names)
    for domains, roles in (((0,), None), ((), good.labels), ((), np.zeros(2, np.uint8))):
        with pytest.raises(ValueError):
            ClassSamples(good.samples, good.labels, good.class_names, domains, roles)
    with pytest.raises(ValueError):
        good.samples[0] = 1


def test_subset_relabels_in_the_order_given() -> None:
    data = numbered([2, 3, 4])
    part = data.subset([2, 0])
    assert part.class_names == ("class 2", "class 0")
    for new, old in ((0, 2), (1, 0)):
        np.testing.assert_array_equal(part.samples[part.labels == new], data.samples[data.labels == old])
    for classes in ([0, 0], [3], [-1]):
        with pytest.raises(ValueError):
            data.subset(classes)


@given(
    ways=st.integers(1, 6),
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
    spare=st.lists(st.integers(0, 5), min_size=6, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_episode(ways: int, shots: int, queries: int, spare: list[int], seed: int) -> None:
    data = numbered([shots + queries + extra for extra in spare])
    episode = sample_episode(data, ways, shots, queries, np.random.default_rng(seed))
    again = sample_episode(data, ways, shots, queries, np.random.default_rng(seed))
    np.testing.assert_array_equal(episode.support_x, again.support_x)

    assert episode.support_y.tolist() == list(range(ways)) * shots
    assert episode.query_y.tolist() == list(range(ways)) * queries
    assert len(set(episode.class_names)) == ways
    support, query = episode.support_x[:, 0, 0, 0], episode.query_x[:, 0, 0, 0]
    assert len({*support.tolist(), *query.tolist()}) == ways * (shots + queries)
    for indices, labels in ((support, episode.support_y), (query, episode.query_y)):
        for index, label in zip(indices, labels, strict=True):
            assert data.class_names[data.labels[index]] == episode.class_names[label]


def test_every_class_gets_every_label() -> None:
    data = numbered([2] * 4)
    seen = {
        (name, label)
        for seed in range(200)
        for label, name in enumerate(sample_episode(data, 3, 1, 1, np.random.default_rng(seed)).class_names)
    }
    assert len(seen) == 4 * 3


def test_episode_that_cannot_be_drawn_is_refused() -> None:
    data = numbered([5, 5])
    with pytest.raises(DataError, match=r"a task needs 3 classes with 1 . 1 samples each, there are 2"):
        sample_episode(data, 3, 1, 1, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"a task needs 2 classes with 3 . 3 samples each, there are 0"):
        sample_episode(data, 2, 3, 3, np.random.default_rng(0))
    with pytest.raises(ValueError):
        sample_episode(data, 2, 0, 1, np.random.default_rng(0))


def test_a_task_stays_in_one_domain_and_keeps_its_order() -> None:
    data = numbered([4] * 6)
    data = replace(data, domains=(0, 1, 0, 1, 0, 1), fixed_order=True)
    drawn = {sample_episode(data, 3, 1, 1, np.random.default_rng(seed)).class_names for seed in range(20)}
    assert drawn == {("class 0", "class 2", "class 4"), ("class 1", "class 3", "class 5")}
    with pytest.raises(DataError, match="there are 3"):
        sample_episode(data, 4, 1, 1, np.random.default_rng(0))


@given(seed=st.integers(0, 2**32 - 1))
def test_samples_keep_to_their_roles(seed: int) -> None:
    data = numbered([8] * 3)
    roles = np.random.default_rng(seed).integers(0, 3, 24).astype(np.uint8)
    try:
        drawer = TaskDrawer(replace(data, roles=roles), 2, 2, 2)
    except DataError:
        return
    for number in range(5):
        drawn = drawer.draw(np.random.default_rng([seed, number]))
        assert not (roles[drawn.support] == ONLY_QUERY).any() and not (roles[drawn.query] == ONLY_SUPPORT).any()
        assert len(np.unique(np.concatenate([drawn.support, drawn.query], axis=1))) == 8
        assert (data.labels[drawn.support] == drawn.classes[:, None]).all()


def test_picture_shows_every_support_sample() -> None:
    empty = numbered([8] * 5)
    blank = ClassSamples(np.zeros((40, 1, 28, 28), np.uint8), empty.labels, ("", "", "", "", ""))
    inked = ClassSamples(np.full((40, 1, 28, 28), 255, np.uint8), empty.labels, ("", "", "", "", ""))
    pictures = [
        np.asarray(draw_episode(sample_episode(data, 5, 5, 3, np.random.default_rng(0)))) for data in (blank, inked)
    ]
    changed = (pictures[0] != pictures[1]).any(axis=-1)
    shown_queries = 2 * 7
    assert abs(int(changed.sum()) - (25 + shown_queries) * (28 * 3) ** 2) < 0.01 * changed.sum()
