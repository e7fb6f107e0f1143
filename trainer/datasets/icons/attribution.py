"""Writes ATTRIBUTION.md: who drew what, under which licence, and what was changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pmeta.trainer.datasets.icons.package import PACKAGE, VERSION, IconSet
from pmeta.trainer.datasets.icons.selection import Drawing

ICONS_CHANGES: Final = """\
Each icon was rendered in black on white, cropped to its ink, rescaled to 28x28 pixels, and reduced to
16 grey levels. Icons were selected and labelled by their names."""


def attribution(data_file: str, changes: str, drawings: Sequence[Drawing], sets: Mapping[str, IconSet]) -> str:
    """Returns the text of ATTRIBUTION.md for these drawings; `sets` is keyed by prefix.

    changes: what was done to the drawings, in sentences.
    """
    counts = Counter(drawing.prefix for drawing in drawings)
    introduction = f"""\
# Attribution

The drawings in `{data_file}` come from the icon sets below, as published in the npm package `{PACKAGE}` {VERSION}.
Each drawing keeps the licence of its set; `{data_file}` names set and icon of every drawing.

**Changes.** {changes} The authors do not endorse this data set.

| set | author | drawings | licence |
|---|---|---:|---|
"""
    return introduction + "".join(_row(sets[prefix], counts[prefix]) for prefix in sorted(counts))


def _row(icon_set: IconSet, count: int) -> str:
    author = f"[{icon_set.author}]({icon_set.url})" if icon_set.url else icon_set.author
    spdx_page = f"https://spdx.org/licenses/{icon_set.license_spdx}.html"
    own_text = f", [as published]({icon_set.license_url})" if icon_set.license_url else ""
    return (
        f"| {icon_set.title} (`{icon_set.prefix}`) | {author} | {count} "
        f"| [{icon_set.license_spdx}]({spdx_page}){own_text} |\n"
    )
