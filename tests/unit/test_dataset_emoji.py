"""The emoji data set: what is in the file, who is held out, and how it is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from rich.console import Console

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, SPLITS
from pmeta.trainer.datasets.emoji import DATA_FILE, VENDORS, Emoji, EmojiData, load_emoji_data
from pmeta.trainer.datasets.emoji.build import build
from pmeta.trainer.datasets.emoji.names import drawings_by_emoji, families
from pmeta.trainer.datasets.emoji.render import render_emoji
from pmeta.trainer.datasets.icons.package import LICENSES, VERSION, IconSet
from pmeta.trainer.datasets.icons.render import Icon

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def data() -> EmojiData:
    return load_emoji_data()


# --- the file --------------------------------------------------------------------------------------------------


def test_file_has_the_documented_size(data: EmojiData) -> None:
    assert len(data.images) == 6196
    assert np.bincount(data.splits).tolist() == [421, 99, 140]
    assert DATA_FILE.stat().st_size < 6_000_000


def test_every_emoji_is_drawn_by_google_and_seven_others_once_each(data: EmojiData) -> None:
    drawn_by = np.zeros((len(data.emoji), len(data.set_prefixes)), int)
    np.add.at(drawn_by, (data.labels, data.set_of_drawing), 1)
    assert drawn_by.max() == 1
    google = np.isin(data.set_prefixes, VENDORS["google"])
    assert drawn_by[:, google].all()
    assert drawn_by[:, ~google].sum(axis=1).min() >= 7


def test_families_lie_in_one_split(data: EmojiData) -> None:
    for family in np.unique(data.families):
        assert len(np.unique(data.splits[data.families == family])) == 1
    assert {"cat", "crying-cat"} <= set(data.emoji.tolist())


def test_pictures_are_fitted_on_white_and_all_different_between_emoji(data: EmojiData) -> None:
    border = np.ones((32, 32), bool)
    border[2:-2, 2:-2] = False
    assert (data.images[:, border] >= 239).all()  # two levels of rounding at the edge of the paint
    painted = (data.images < 255).any(axis=3)
    assert painted[:, 2:30].any(axis=(1, 2)).all()
    owners: dict[bytes, set[int]] = {}
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        owners.setdefault(image.tobytes(), set()).add(label)
    assert max(map(len, owners.values())) == 1


def test_every_set_is_attributed_with_its_licence(data: EmojiData) -> None:
    assert sorted(data.set_prefixes.tolist()) == sorted(prefix for sets in VENDORS.values() for prefix in sets)
    rows = [row for row in DATA_FILE.with_name("ATTRIBUTION.md").read_text("utf-8").splitlines() if "(`" in row]
    assert len(rows) == len(data.set_prefixes)
    for prefix, row in zip(data.set_prefixes.tolist(), rows, strict=True):
        count = int((data.set_of_drawing == data.set_prefixes.tolist().index(prefix)).sum())
        assert f"(`{prefix}`)" in row and f"| {count} |" in row and any(f"[{spdx}]" in row for spdx in LICENSES)


# --- the vendor held out ---------------------------------------------------------------------------------------


def count_by_class(labels: Any) -> set[int]:
    return set(np.bincount(labels).tolist())


def test_google_never_trains_and_alone_is_asked_about() -> None:
    for split, classes in (("train", 421), ("val", 99)):
        data = Emoji().load(split)  # type: ignore[arg-type]
        assert data.num_classes == classes and data.shape == (3, 32, 32) and data.roles is None
        assert count_by_class(data.labels) == {7, 8}
    test = Emoji().load("test")
    assert test.num_classes == 140 and test.roles is not None
    assert count_by_class(test.labels[test.roles == ONLY_QUERY]) == {2}
    assert count_by_class(test.labels[test.roles == ONLY_SUPPORT]) == {7, 8}


def test_held_out_drawings_are_those_of_the_vendor(data: EmojiData) -> None:
    test = Emoji(held_out="microsoft").load("test")
    assert test.roles is not None
    asked = {image.tobytes() for image in test.samples[test.roles == ONLY_QUERY]}
    sets = [data.set_prefixes.tolist().index(prefix) for prefix in VENDORS["microsoft"]]
    drawn = data.images.transpose(0, 3, 1, 2)[np.isin(data.set_of_drawing, sets) & (data.splits[data.labels] == 2)]
    assert asked == {image.tobytes() for image in drawn}


def test_emoji_that_the_vendor_did_not_draw_are_not_tested() -> None:
    test = Emoji(held_out="mozilla").load("test")
    assert 5 < test.num_classes < 140 and test.roles is not None
    assert count_by_class(test.labels[test.roles == ONLY_QUERY]) == {1}


def test_nobody_held_out_leaves_every_drawing_free(data: EmojiData) -> None:
    parts = [Emoji(held_out="nobody").load(split) for split in SPLITS]
    assert sum(len(part.samples) for part in parts) == len(data.images)
    assert all(part.roles is None for part in parts)


def test_every_vendor_can_be_held_out() -> None:
    options = get_args(get_type_hints(Emoji)["held_out"])
    assert sorted(options) == sorted([*VENDORS, "nobody"])


@pytest.mark.parametrize("damage", ["short", "missing", "labels", "type"])
def test_damaged_file_is_refused(tmp_path: Path, data: EmojiData, damage: str) -> None:
    path = tmp_path / "emoji.npz"
    arrays = dict(vars(data))
    if damage == "labels":
        arrays["labels"] = arrays["labels"] + np.uint16(1)
    if damage == "type":
        arrays["images"] = arrays["images"].astype(np.float32)
    if damage != "missing":
        np.savez(path, **arrays)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"missing or damaged|not at hand"):
        Emoji(path=path).load("test")


# --- names -----------------------------------------------------------------------------------------------------


def icon_set(prefix: str, names: dict[str, tuple[str, ...]]) -> IconSet:
    icon = Icon("", 0, 0, 1, 1)
    return IconSet(
        prefix, prefix, "", "", "MIT", "", {n: (n, *a) for n, a in names.items()}, dict.fromkeys(names, icon)
    )


def test_names_are_matched_across_sets() -> None:
    found = drawings_by_emoji(
        [
            icon_set("a", {"bear-face": ("bear",), "bear-face-dark-skin-tone": (), "small-blue-diamond": ()}),
            icon_set("b", {"bear": (), "grinning-bear": ()}),
            icon_set("c", {"bearface": (), "grinningbear": ()}),
            icon_set("d", {"bear": (), "grinning-bear": ()}),
            icon_set("streamline-emojis", {"bear-1": (), "bear-2": (), "bear-dark": ()}),
        ]
    )
    assert found == {
        "bear": {"a": "bear-face", "b": "bear", "c": "bearface", "d": "bear", "streamline-emojis": "bear-1"},
        "grinning-bear": {"b": "grinning-bear", "c": "grinningbear", "d": "grinning-bear"},
    }


def test_the_drawing_of_the_emojis_own_name_is_taken() -> None:
    sets = [icon_set(prefix, {"sad-face": ("sadness",)}) for prefix in "ab"]
    sets.append(icon_set("c", {"sadness": (), "sad-face": ()}))
    assert drawings_by_emoji(sets) == {"sad-face": {"a": "sad-face", "b": "sad-face", "c": "sad-face"}}


def test_families_share_words() -> None:
    names = ["cat", "cat-face", "crying-cat", "crying-face", "sad-face", "black-cats", "black-nib", "dog", "dog-face"]
    family_of = families([*names, "leo", "aries"])
    assert {name for name in names if family_of[name] == "black-cats"} == {
        *("black-cats", "cat", "cat-face", "crying-cat", "crying-face", "sad-face"),
    }
    assert family_of["dog"] == family_of["dog-face"] == "dog"
    assert family_of["black-nib"] == "black-nib"
    assert family_of["leo"] == family_of["aries"] == "aries"


# --- rendering and the build -----------------------------------------------------------------------------------


def test_paint_is_fitted_whatever_the_padding() -> None:
    def square(x: float, y: float, size: float) -> Icon:
        return Icon(f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="#f00"/>', 0, 0, 36, 36)

    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[2:30, 2:30] = (255, 0, 0)
    for icon in (square(4.5, 18, 9), square(0, 0, 36)):
        np.testing.assert_array_equal(render_emoji(icon), expected)
    assert render_emoji(Icon("", 0, 0, 36, 36)) is None


def test_white_paint_counts_and_half_covered_pixels_mix() -> None:
    ring = Icon('<path fill="#fff" d="M0 0h32v32H0z"/><path fill="#00f" d="M16 0h16v32H16z"/>', 0, 0, 32, 32)
    image = render_emoji(ring)
    assert image is not None
    assert image[16, 8].tolist() == [255, 255, 255] and image[16, 24].tolist() == [0, 0, 255]
    half = render_emoji(Icon('<path fill-opacity="0.5" d="M0 0h32v32H0z"/>', 0, 0, 32, 32))
    assert half is not None and half[16, 16, 0] in (123, 132)  # the two levels beside 127.5


@pytest.fixture(scope="module")
def fake_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten sets and another one: `cat` and `dog` are in all, `cow` is in too few, `fox` not in Google's."""
    root = tmp_path_factory.mktemp("fake") / "package"
    (root / "json").mkdir(parents=True)
    rng = np.random.default_rng(0)
    prefixes = [prefix for sets in VENDORS.values() for prefix in sets] + ["openmoji"]
    collections = {}
    for number, prefix in enumerate(prefixes):
        names = ["cat", "dog", "fox", "cow", "cat-dark-skin-tone"]
        if prefix.startswith("noto"):
            names.remove("fox")
        if number > 4:
            names.remove("cow")
        bodies = [
            f'<circle cx="9" cy="9" r="{rng.uniform(3, 9):.3f}" fill="#{rng.integers(4096):03x}"/>' for _ in names
        ]
        bodies = [f'{body}<path d="M0 0h{rng.uniform(1, 9):.2f}v5z"/>' for body in bodies]
        info = {"name": prefix, "author": {"name": "An author"}, "license": {"spdx": "CC-BY-4.0"}, "palette": True}
        collections[prefix] = info
        icons = {name: {"body": body} for name, body in zip(names, bodies, strict=True)}
        record = {"prefix": prefix, "info": info, "icons": icons, "width": 18, "height": 18}
        (root / "json" / f"{prefix}.json").write_text(json.dumps(record))
    (root / "collections.json").write_text(json.dumps(collections))
    (root / "package.json").write_text(json.dumps({"name": "@iconify/json", "version": VERSION}))
    return root


def test_build_is_deterministic_and_takes_what_enough_sets_draw(fake_package: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build(fake_package, tmp_path / name, Console(quiet=True))
    assert (tmp_path / "one" / "emoji.npz").read_bytes() == (tmp_path / "two" / "emoji.npz").read_bytes()
    built = load_emoji_data(tmp_path / "one" / "emoji.npz")
    assert built.emoji.tolist() == ["cat", "dog"]
    assert len(built.images) == 20
    assert "openmoji" not in built.set_prefixes
    assert "openmoji" not in (tmp_path / "one" / "ATTRIBUTION.md").read_text("utf-8")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"emoji.npz", "ATTRIBUTION.md"}


def test_a_set_under_another_licence_is_not_used(fake_package: Path, tmp_path: Path) -> None:
    collections = json.loads((fake_package / "collections.json").read_text())
    collections["noto"]["license"] = {"spdx": "CC-BY-SA-4.0"}
    package = tmp_path / "package"
    package.mkdir()
    for name in ("json", "package.json"):
        (package / name).symlink_to(fake_package / name)
    (package / "collections.json").write_text(json.dumps(collections))
    with pytest.raises(DataError, match="no emoji is drawn by noto, noto-v1 and 7 other sets"):
        build(package, tmp_path, Console(quiet=True))
