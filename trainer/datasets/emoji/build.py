"""Builds emoji.npz and ATTRIBUTION.md from the npm package `@iconify/json`.

    python -m pmeta.trainer.datasets.emoji.build [PACKAGE.tgz | FOLDER] [--out FOLDER]

Same package, same bytes. Takes about three minutes; needs `pip install resvg-py pillow`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import replacement
from pmeta.trainer.datasets.emoji import VENDORS
from pmeta.trainer.datasets.emoji.names import drawings_by_emoji, families
from pmeta.trainer.datasets.emoji.render import render_emoji
from pmeta.trainer.datasets.icons.attribution import attribution
from pmeta.trainer.datasets.icons.package import LICENSES, IconSet, build_from_package, read_icon_sets
from pmeta.trainer.datasets.icons.selection import Drawing, without_conflicts
from pmeta.trainer.datasets.icons.splits import split_concepts
from pmeta.trainer.datasets.npz_arrays import write_npz

_EVERYWHERE: Final = VENDORS["google"]  # held out unless asked otherwise: an emoji is drawn by all these sets,
_MIN_OTHERS: Final = 7  # and by so many others
_CHANGES: Final = """\
Each emoji was rendered on white, cropped to its paint, rescaled to 32x32 pixels, and reduced to 32 levels
of each colour. Emoji were selected and labelled by their names."""


@dataclass(frozen=True)
class Selection:
    """What goes into the data set."""

    drawings: tuple[Drawing, ...]  # by emoji, then by set; the emoji is the drawing's concept
    sets: Mapping[str, IconSet]  # by prefix


def select_drawings(sets: Sequence[IconSet], console: Console) -> Selection:
    """Renders the emoji that enough sets draw. A picture under two names is dropped from both."""
    by_prefix = {icon_set.prefix: icon_set for icon_set in sets}
    candidates = {emoji: names for emoji, names in drawings_by_emoji(sets).items() if _is_well_covered(names)}
    rendered = [
        Drawing(prefix, name, emoji, image)
        for emoji, names in track(candidates.items(), "Rendering", console=console)
        for prefix, name in names.items()
        if (image := render_emoji(by_prefix[prefix].icons[name])) is not None
    ]
    sets_of: dict[str, list[str]] = defaultdict(list)
    unambiguous = without_conflicts(rendered)
    for drawing in unambiguous:
        sets_of[drawing.concept].append(drawing.prefix)
    kept = {emoji for emoji, prefixes in sets_of.items() if _is_well_covered(prefixes)}
    return Selection(tuple(drawing for drawing in unambiguous if drawing.concept in kept), by_prefix)


def _is_well_covered(prefixes: Sequence[str] | Mapping[str, str]) -> bool:
    return all(prefix in prefixes for prefix in _EVERYWHERE) and len(prefixes) - len(_EVERYWHERE) >= _MIN_OTHERS


def arrays_of(drawings: Sequence[Drawing]) -> dict[str, NDArray[Any]]:
    """Returns the arrays of emoji.npz; README.md describes them."""
    emoji = sorted({drawing.concept for drawing in drawings})
    prefixes = sorted({drawing.prefix for drawing in drawings})
    family_of = families(emoji)
    split_of = split_concepts(family_of)
    return {
        "images": np.stack([drawing.image for drawing in drawings]),
        "labels": np.array([emoji.index(drawing.concept) for drawing in drawings], np.uint16),
        "emoji": np.array(emoji),
        "families": np.array([family_of[name] for name in emoji]),
        "splits": np.array([split_of[name] for name in emoji], np.uint8),
        "set_prefixes": np.array(prefixes),
        "set_of_drawing": np.array([prefixes.index(drawing.prefix) for drawing in drawings], np.uint8),
        "icon_names": np.array([drawing.name for drawing in drawings]),
    }


def build(package: Path, out: Path, console: Console) -> None:
    """Reads the package at `package` and writes emoji.npz and ATTRIBUTION.md to the folder `out`."""
    wanted = {prefix for prefixes in VENDORS.values() for prefix in prefixes}
    sets = read_icon_sets(package, lambda prefix, info: prefix in wanted and info["license"].get("spdx") in LICENSES)
    selection = select_drawings(sets, console)
    if not selection.drawings:
        what = f"no emoji is drawn by {', '.join(_EVERYWHERE)} and {_MIN_OTHERS} other sets"
        raise DataError(what, str(package), "check the package")
    arrays = arrays_of(selection.drawings)
    write_npz(out / "emoji.npz", arrays)
    with replacement(out / "ATTRIBUTION.md") as partial:
        partial.write_text(attribution("emoji.npz", _CHANGES, selection.drawings, selection.sets), "utf-8")
    train, val, test = np.bincount(arrays["splits"], minlength=3)
    console.print(f"{len(selection.drawings)} drawings of {len(arrays['emoji'])} emoji ({train}/{val}/{test})")


def main(
    package: Annotated[
        Path | None, typer.Argument(help="The package, unpacked or .tgz. Fetched with npm if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where emoji.npz and ATTRIBUTION.md go.")] = Path(__file__).parent,
) -> None:
    """Builds the emoji data set. Example: python -m pmeta.trainer.datasets.emoji.build --out ."""
    build_from_package(package, out, build)


if __name__ == "__main__":
    typer.run(main)
