"""Divides the classes of a user's own data into meta-training, validation and test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import SPLITS, Split

DEFAULT_SHARES: Final = (0.64, 0.16, 0.2)  # as in MiniImageNet
_SEED: Final = 2022


def check_shares(shares: Sequence[float]) -> None:
    """Raises ValueError unless these are three shares, of train, val and test, that add up to 1."""
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise ValueError(f"shares is {list(shares)}, but must be three numbers (train, val, test) that add up to 1")


def check_apart(classes: Mapping[Split, Collection[str]], where: str) -> None:
    """Raises DataError where a class, given by name, is in two splits: it would be tested on what it was trained on."""
    for one, other in itertools.combinations(classes, 2):
        if both := sorted({*classes[one]} & {*classes[other]}):
            what = f"has the class '{both[0]}' in {one} and in {other}"
            raise DataError(what, where, "give every class to one split: a meta-trained network is tested on new ones")


def classes_of(split: Split, class_count: int, shares: Sequence[float]) -> list[int]:
    """Returns the classes of one split, ascending: the same at every call, no class in two splits."""
    shuffled = np.random.default_rng(_SEED).permutation(class_count)
    ends = [0, *(round(class_count * sum(shares[: index + 1])) for index in range(len(SPLITS)))]
    index = SPLITS.index(split)
    return sorted(shuffled[ends[index] : ends[index + 1]].tolist())
