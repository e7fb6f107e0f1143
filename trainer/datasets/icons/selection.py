"""Chooses drawings: no near-duplicates, no drawing under two concepts, no set that dominates a concept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_PER_SET: Final = 2  # drawings per set and concept: say outline and filled
MAX_PER_CONCEPT: Final = 60
MIN_PER_CONCEPT: Final = 20
# Correlation of two blurred bitmaps from which the drawings count as the same one.
SAME_DRAWING: Final = 0.95
SAME_DRAWING_ACROSS_CONCEPTS: Final = 0.96


@dataclass(frozen=True)
class Drawing:
    """One rendered icon and where it is from."""

    prefix: str
    name: str
    concept: str
    image: NDArray[np.uint8]  # (28, 28)


def fingerprint(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the bitmap blurred by a 3x3 binomial filter, as a vector of mean 0 and length 1: [784].

    The dot product of two fingerprints is the correlation of the blurred bitmaps.
    """
    padded = np.pad(image.astype(np.float32), 1)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    blurred = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]).ravel()
    centred: NDArray[np.float32] = blurred - blurred.mean()
    return centred / np.float32(max(float(np.linalg.norm(centred)), 1e-6))


def without_conflicts(drawings: Sequence[Drawing]) -> list[Drawing]:
    """Drops every bitmap that appears under more than one concept: its label would be arbitrary."""
    concepts: dict[bytes, set[str]] = defaultdict(set)
    for drawing in drawings:
        concepts[drawing.image.tobytes()].add(drawing.concept)
    return [drawing for drawing in drawings if len(concepts[drawing.image.tobytes()]) == 1]


def distinct(drawings: Iterable[Drawing], rng: np.random.Generator) -> list[Drawing]:
    """Returns at most 60 drawings of one concept, at most 2 per set, no two of them near-duplicates.

    Sets come in random order; every set gives its first drawing before any gives its second.
    """
    by_set: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        by_set[drawing.prefix].append(drawing)
    order = [by_set[prefix] for prefix in rng.permutation(sorted(by_set))]
    chosen: list[Drawing] = []
    chosen_prints = np.zeros((MAX_PER_CONCEPT, 784), np.float32)
    for round_number in range(1, MAX_PER_SET + 1):
        for candidates in order:
            for drawing in candidates:
                taken = sum(other.prefix == drawing.prefix for other in chosen)
                if len(chosen) == MAX_PER_CONCEPT or taken >= round_number:
                    break
                mark = fingerprint(drawing.image)
                if chosen and float((chosen_prints[: len(chosen)] @ mark).max()) >= SAME_DRAWING:
                    continue
                chosen_prints[len(chosen)] = mark
                chosen.append(drawing)
    return chosen


def lookalikes(drawings: Sequence[Drawing]) -> Iterator[tuple[int, int]]:
    """Yields index pairs of drawings under *different* concepts that look the same."""
    prints = np.stack([fingerprint(drawing.image) for drawing in drawings])
    concepts = np.array([drawing.concept for drawing in drawings])
    block = 1024
    for start in range(0, len(drawings), block):
        similar = prints[start : start + block] @ prints.T >= SAME_DRAWING_ACROSS_CONCEPTS
        similar &= concepts[start : start + block, None] != concepts[None, :]
        for row, column in np.argwhere(similar):
            if start + row < column:
                yield int(start + row), int(column)
