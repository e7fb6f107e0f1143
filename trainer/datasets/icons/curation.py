"""The hand-made part of the icons data set, read from concepts.toml."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.icons.names import normalise_name

CURATION_FILE: Final = Path(__file__).with_name("concepts.toml")


@dataclass(frozen=True)
class Curation:
    """Which names make a concept, which concepts make a family, and what stays out."""

    concept_of_name: Mapping[str, str]  # normalised icon name -> concept
    family_of_concept: Mapping[str, str]
    excluded_sets: frozenset[str]  # set prefixes
    excluded_icons: frozenset[str]  # "prefix:normalised icon name"

    def concept_of(self, names: Iterable[str]) -> str | None:
        """Returns the concept of a drawing that has these names, the main name first; None if none or unclear.

        The main name decides if it is known; otherwise the aliases must agree.
        """
        main, *aliases = (self.concept_of_name.get(normalise_name(name)) for name in names)
        if main is not None:
            return main
        candidates = {concept for concept in aliases if concept is not None}
        return candidates.pop() if len(candidates) == 1 else None


def load_curation(path: Path = CURATION_FILE) -> Curation:
    """Reads concepts.toml. Raises DataError if a concept or a name is listed twice."""
    table = tomllib.loads(path.read_text("utf-8"))
    families = {concept: {concept: names} for concept, names in table["alone"].items()} | table["family"]
    concepts = [(family, concept, names) for family, group in families.items() for concept, names in group.items()]
    _check_unique((concept for _, concept, _ in concepts), "concept", path)
    _check_unique((name for _, _, names in concepts for name in names), "name", path)
    return Curation(
        concept_of_name={name: concept for _, concept, names in concepts for name in names},
        family_of_concept={concept: family for family, concept, _ in concepts},
        excluded_sets=frozenset(table["exclude"]["sets"]),
        excluded_icons=frozenset(table["exclude"]["icons"]),
    )


def _check_unique(values: Iterable[str], kind: str, path: Path) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise DataError(f"{kind} {repeated[0]!r} is listed twice", str(path), "keep one")
