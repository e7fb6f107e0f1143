"""Which drawings show the same emoji, and which emoji are so alike that one split must hold them all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from pmeta.trainer.datasets.icons.package import IconSet

_SKIN_TONE: Final = re.compile(r".*(skin-tone|-(dark|light|medium|medium-dark|medium-light))(-|$).*")
_VARIANT: Final = re.compile(r"(.*[a-z])-(\d)")  # in the set below: woman-1, woman-2 are two drawings of one emoji
_SET_WITH_VARIANTS: Final = "streamline-emojis"
# Words that say nothing about what is drawn, or only its colour or size.
_COMMON_WORDS: Final = frozenset(
    (
        *("a", "and", "at", "for", "in", "no", "of", "on", "over", "the", "to", "with", "without"),
        *("black", "blue", "green", "orange", "red", "white"),
        *("closed", "hot", "large", "light", "medium", "old", "open", "round", "small"),
        *("button", "hand", "mark", "sign", "symbol"),
    )
)
# Differ from other emoji only in size, which is lost when drawings are fitted, or in colour, which some sets lack.
_LEFT_OUT: Final = frozenset(
    (
        *("black-medium-small-square", "black-medium-square", "black-small-square"),
        *("white-medium-small-square", "white-medium-square", "white-small-square"),
        *("small-blue-diamond", "small-orange-diamond"),
        *("blue-book", "green-book", "orange-book", "green-apple"),
    )
)
# Drawn alike in every set, though their names share no word.
_ZODIAC: Final = (
    *("aquarius", "aries", "cancer", "capricorn", "gemini", "leo", "libra"),
    *("ophiuchus", "pisces", "sagittarius", "scorpio", "taurus", "virgo"),
)


def drawings_by_emoji(sets: Sequence[IconSet]) -> dict[str, dict[str, str]]:
    """Returns emoji -> set prefix -> icon name, one drawing per set; both in alphabetical order.

    Names count as the same without their hyphens, and so do names that any set lists as aliases. The name that most
    sets use, then the shortest, names the emoji. Skin tones are left out.
    """
    groups = _Groups()
    for icon_set in sets:
        for names in icon_set.names.values():
            groups.join(_letters(_plain(icon_set.prefix, name) or name) for name in names)
    members: dict[str, list[tuple[str, str, str]]] = defaultdict(list)  # plain name, prefix, icon name
    for icon_set in sets:
        for name in icon_set.icons:
            plain = _plain(icon_set.prefix, name)
            if plain is not None:
                members[groups.of(_letters(plain))].append((plain, icon_set.prefix, name))
    found = {}
    for drawings in members.values():
        counts = Counter(plain for plain, _, _ in drawings)
        emoji = min(counts, key=lambda plain: (-counts[plain], len(plain), plain))
        best_last = sorted(drawings, key=lambda drawing: (drawing[1], drawing[0] == emoji, drawing[2]))
        found[emoji] = {prefix: name for _, prefix, name in best_last}
    return {emoji: found[emoji] for emoji in sorted(found) if emoji not in _LEFT_OUT}


def families(emoji: Iterable[str]) -> dict[str, str]:
    """Returns emoji -> family: emoji whose names share a word, directly or through others, are one family.

    A family is named after its first member. "cat-face" is a cat; faces of nothing else are all one family, and so are
    the signs of the zodiac.
    """
    names = sorted(emoji)
    groups = _Groups()
    for name in names:
        groups.join([name, *(f"word {word}" for word in _words(name, names))])
    groups.join(_ZODIAC)
    first: dict[str, str] = {}
    return {name: first.setdefault(groups.of(name), name) for name in names}


def _plain(prefix: str, name: str) -> str | None:
    """The name without a number of variant; None for second variants and skin tones."""
    if _SKIN_TONE.fullmatch(name):
        return None
    variant = _VARIANT.fullmatch(name) if prefix == _SET_WITH_VARIANTS else None
    if variant is None:
        return name
    return variant[1] if variant[2] == "1" else None


def _letters(name: str) -> str:
    return name.replace("-", "")


def _words(name: str, names: Sequence[str]) -> set[str]:
    owner = name.removesuffix("-face")
    words = owner.split("-") if owner in names else name.split("-")
    return {_singular(word) for word in words if len(word) > 1} - _COMMON_WORDS


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class _Groups:
    """Names joined into groups, directly or through others."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name that stands for the group of `name`."""
        while (parent := self._parents.setdefault(name, name)) != name:
            name = parent
        return name

    def join(self, names: Iterable[str]) -> None:
        first, *others = names
        for name in others:
            self._parents[self.of(name)] = self.of(first)
