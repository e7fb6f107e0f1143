"""Normalises the names icon sets give their icons, so that one thing has one name across sets."""

from __future__ import annotations

import re
from typing import Final

# Words that name a drawing style, a size or a counter, not the thing drawn.
_STYLE_SUFFIX: Final = re.compile(
    "outlined?|outlines|fill|filled|solid|line|linear|lined|regular|bold|thin|light|duo|duotone|twotone|tone|sharp|"
    "rounded|round|broken|remix|alt|o|variant|simple|stroked?|baseline|ic|icon|glyph|small|medium|large|big|mini|"
    "one|two|three|four|five|six|seven|eight|nine|ten"
)
_STYLE_PREFIX: Final = re.compile("baseline|outline|round|sharp|twotone|ic|icon|filled|bold|thin|light")
# Names that end in such a word but mean something else with it.
_WHOLE_NAME: Final = re.compile(
    "(flash|traffic|street)-light|(text|format|type)-bold|(heart|link|chain)-broken|(format-)?color-fill|"
    "signal-cellular-alt|chart-line|file-alt|dice-five"
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
    while len(words) > 1 and not _WHOLE_NAME.fullmatch("-".join(words)):
        is_number = _NUMBER.fullmatch(words[-1]) is not None
        if _STYLE_SUFFIX.fullmatch(words[-1]) or (is_number and numbers_taken == 0):
            numbers_taken += is_number
            words = words[:-1]
        elif _STYLE_PREFIX.fullmatch(words[0]):
            words = words[1:]
        else:
            break
    joined = "-".join(words)
    glued = _TRAILING_DIGITS.fullmatch(joined)
    return glued[1] if glued else joined
