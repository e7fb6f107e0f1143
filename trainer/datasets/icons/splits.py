"""Divides concepts into meta-training, validation and test, whole families at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np

SPLITS: Final = ("train", "val", "test")
_SHARES: Final = (0.64, 0.15, 0.21)
_LARGE_FAMILY: Final = 8  # larger families train: they would make validation or test a study of one theme
_SEED: Final = 2022


def split_concepts(family_of_concept: Mapping[str, str]) -> dict[str, int]:
    """Returns concept -> 0 (train), 1 (val) or 2 (test).

    Families larger than 8 concepts train. The others come in a seeded random order, and each goes to the split
    that is furthest below its share (64 : 15 : 21), relative to that share.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for concept in sorted(family_of_concept):
        members[family_of_concept[concept]].append(concept)
    shuffled = [str(name) for name in np.random.default_rng(_SEED).permutation(sorted(members))]
    sizes = [0] * len(SPLITS)
    chosen: dict[str, int] = {}
    for family in sorted(shuffled, key=lambda name: len(members[name]) <= _LARGE_FAMILY):  # stable: large ones first
        large = len(members[family]) > _LARGE_FAMILY
        split = 0 if large else min(range(len(SPLITS)), key=lambda index: sizes[index] / _SHARES[index])
        sizes[split] += len(members[family])
        chosen |= dict.fromkeys(members[family], split)
    return chosen
