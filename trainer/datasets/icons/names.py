"""Normalises the names icon sets give their icons, so that one thing has one name across sets."""

from __future__ import annotations

import re
from typing import Final

# Words that name a drawing style or a size, not the thing drawn.
_STYLE_SUFFIXES: Final = frozenset(
    "outline outlined outlines fill filled solid line linear lined regular bold thin light duotone duo twotone "
    "tone sharp rounded round broken remix alt o variant simple stroke stroked baseline ic icon glyph "
    "small medium large big mini "
    "one two three four five six seven eight nine ten".split()
)
_STYLE_PREFIXES: Final = frozenset("baseline outline round sharp twotone ic icon filled bold thin light".split())
# Names that end in a style word but mean something else with it.
_WHOLE_NAMES: Final = frozenset(
    "chart-line line-chart flash-light traffic-light street-light text-bold format-bold type-bold file-alt "
    "dice-five format-color-fill fill-drip color-fill signal-cellular-alt "
    "heart-broken broken-heart link-broken chain-broken".split()
)
_NUMBER: Final = re.compile(r"\d+(px)?")
_TRAILING_DIGITS: Final = re.compile(r"(.*[a-z]{3})\d{1,2}")


def normalise_name(name: str) -> str:
    """Returns the icon name without style words, sizes and counters: `ic-trash-24-filled` -> `trash`.

    Words are split at `-` and `_`; style words and at most one number are taken off the end, then style words off
    the front, always leaving one word. Digits glued to the last word go too (`home2` -> `home`).
    """
    words = [word for word in re.split(r"[-_]+", name.lower()) if word]
    numbers_taken = 0
    while len(words) > 1 and "-".join(words) not in _WHOLE_NAMES:
        is_number = _NUMBER.fullmatch(words[-1]) is not None
        if words[-1] in _STYLE_SUFFIXES or (is_number and numbers_taken == 0):
            numbers_taken += is_number
            words = words[:-1]
        elif words[0] in _STYLE_PREFIXES:
            words = words[1:]
        else:
            break
    joined = "-".join(words)
    glued = _TRAILING_DIGITS.fullmatch(joined)
    return glued[1] if glued else joined
