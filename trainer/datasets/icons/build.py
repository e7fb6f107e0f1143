"""Builds icons.npz and ATTRIBUTION.md from the npm package `@iconify/json`.

    python -m pmeta.trainer.datasets.icons.build [PACKAGE.tgz | FOLDER] [--out FOLDER]

Same package, same bytes. Takes about three minutes; needs `pip install resvg-py pillow`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
from pmeta.trainer.datasets.icons.attribution import ICONS_CHANGES, attribution
from pmeta.trainer.datasets.icons.curation import Curation, load_curation
from pmeta.trainer.datasets.icons.names import normalise_name
from pmeta.trainer.datasets.icons.package import IconSet, build_from_package, is_usable, read_icon_sets
from pmeta.trainer.datasets.icons.render import render_icon
from pmeta.trainer.datasets.icons.selection import (
    MIN_PER_CONCEPT,
    Drawing,
    distinct,
    lookalikes,
    without_conflicts,
)
from pmeta.trainer.datasets.icons.splits import split_concepts
from pmeta.trainer.datasets.npz_arrays import write_npz

_CANDIDATES_PER_SET: Final = 6  # renderings tried per set and concept, shortest names first


@dataclass(frozen=True)
class Selection:
    """What goes into the data set."""

    drawings: tuple[Drawing, ...]  # by concept, then in the order they were chosen
    family_of_concept: dict[str, str]  # of the concepts that are left
    sets: dict[str, IconSet]  # by prefix


def select_drawings(sets: Iterable[IconSet], curation: Curation) -> Selection:
    """Renders the curated icons of all sets and keeps distinct, unambiguous drawings of well-covered concepts."""
    by_prefix: dict[str, IconSet] = {}
    candidates: list[Drawing] = []
    for icon_set in sets:
        by_prefix[icon_set.prefix] = icon_set
        candidates += _render_candidates(icon_set, curation)
    by_concept: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in without_conflicts(candidates):
        by_concept[drawing.concept].append(drawing)
    chosen = [
        drawing for concept in sorted(by_concept) for drawing in distinct(by_concept[concept], _generator_for(concept))
    ]
    confusable = {index for pair in lookalikes(chosen) for index in pair}
    clear = [drawing for index, drawing in enumerate(chosen) if index not in confusable]
    counts = Counter(drawing.concept for drawing in clear)
    kept = {concept for concept, count in counts.items() if count >= MIN_PER_CONCEPT}
    return Selection(
        drawings=tuple(drawing for drawing in clear if drawing.concept in kept),
        family_of_concept={concept: curation.family_of_concept[concept] for concept in sorted(kept)},
        sets=by_prefix,
    )


def _render_candidates(icon_set: IconSet, curation: Curation) -> list[Drawing]:
    names_of: dict[str, list[str]] = defaultdict(list)
    for name in icon_set.icons:
        concept = curation.concept_of(icon_set.names[name])
        if concept is not None and f"{icon_set.prefix}:{normalise_name(name)}" not in curation.excluded_icons:
            names_of[concept].append(name)
    drawings = []
    for concept, names in names_of.items():
        for name in sorted(names, key=lambda name: (len(name), name))[:_CANDIDATES_PER_SET]:
            image = render_icon(icon_set.icons[name])
            if image is not None:
                drawings.append(Drawing(icon_set.prefix, name, concept, image))
    return drawings


def _generator_for(concept: str) -> np.random.Generator:
    """A generator of the concept's own, so that curating one concept does not reshuffle the others."""
    return np.random.default_rng(list(hashlib.sha256(concept.encode()).digest()[:8]))


def arrays_of(selection: Selection) -> dict[str, NDArray[Any]]:
    """Returns the arrays of icons.npz; README.md describes them."""
    concepts = list(selection.family_of_concept)
    prefixes = sorted({drawing.prefix for drawing in selection.drawings})
    split_of = split_concepts(selection.family_of_concept)
    return {
        "images": np.stack([drawing.image for drawing in selection.drawings]),
        "labels": np.array([concepts.index(drawing.concept) for drawing in selection.drawings], np.uint16),
        "concepts": np.array(concepts),
        "families": np.array([selection.family_of_concept[concept] for concept in concepts]),
        "splits": np.array([split_of[concept] for concept in concepts], np.uint8),
        "set_prefixes": np.array(prefixes),
        "set_of_drawing": np.array([prefixes.index(drawing.prefix) for drawing in selection.drawings], np.uint8),
        "icon_names": np.array([drawing.name for drawing in selection.drawings]),
    }


def build(package: Path, out: Path, console: Console) -> None:
    """Reads the package at `package` and writes icons.npz and ATTRIBUTION.md to the folder `out`."""
    curation = load_curation()
    sets = read_icon_sets(package, lambda prefix, info: prefix not in curation.excluded_sets and is_usable(info))
    selection = select_drawings(track(sets, "Rendering", console=console), curation)
    if not selection.drawings:
        raise DataError(f"no concept has {MIN_PER_CONCEPT} drawings", str(package), "check concepts.toml")
    arrays = arrays_of(selection)
    write_npz(out / "icons.npz", arrays)
    with replacement(out / "ATTRIBUTION.md") as partial:
        partial.write_text(attribution("icons.npz", ICONS_CHANGES, selection.drawings, selection.sets), "utf-8")
    console.print(summary(arrays["splits"], len(selection.drawings), len(arrays["set_prefixes"])))


def summary(splits: Sequence[int] | NDArray[np.uint8], drawings: int, sets: int) -> str:
    """One line for the user: how much there is."""
    train, val, test = np.bincount(splits, minlength=3)
    return f"{drawings} drawings of {len(splits)} concepts ({train}/{val}/{test}) from {sets} icon sets"


def main(
    package: Annotated[
        Path | None, typer.Argument(help="The package, unpacked or .tgz. Fetched with npm if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where icons.npz and ATTRIBUTION.md go.")] = Path(__file__).parent,
) -> None:
    """Builds the icons data set. Example: python -m pmeta.trainer.datasets.icons.build --out ."""
    build_from_package(package, out, build)


if __name__ == "__main__":
    typer.run(main)
