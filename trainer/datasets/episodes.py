"""Draws few-shot episodes: a support set to adapt on and a query set to judge by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ClassImages


@dataclass(frozen=True)
class Episode:
    """One few-shot task.

    Both sets are class-interleaved: the first sample of each class in label order, then the second of each, and so
    on. Any prefix of the support set is therefore as balanced as it can be.
    """

    support_x: NDArray[np.uint8]  # (ways · shots, C, H, W)
    support_y: NDArray[np.int64]  # (ways · shots,): 0, 1, ..., ways - 1, 0, 1, ...
    query_x: NDArray[np.uint8]  # (ways · queries, C, H, W)
    query_y: NDArray[np.int64]  # (ways · queries,)
    class_names: tuple[str, ...]  # by label

    def __post_init__(self) -> None:
        for images, labels in ((self.support_x, self.support_y), (self.query_x, self.query_y)):
            if images.ndim != 4 or labels.shape != images.shape[:1]:
                raise ValueError(f"images {images.shape} and labels {labels.shape} do not fit")
            if not np.array_equal(labels, np.arange(len(labels)) % self.ways) or len(labels) % self.ways:
                raise ValueError("labels are not class-interleaved")

    @property
    def ways(self) -> int:
        """Returns the number of classes."""
        return len(self.class_names)


def sample_episode(data: ClassImages, ways: int, shots: int, queries: int, rng: np.random.Generator) -> Episode:
    """Draws `ways` classes in random order, and of each `shots` support and `queries` query samples, all different.

    Raises DataError if `data` has too few classes, or a drawn class too few images.
    """
    if min(ways, shots, queries) < 1:
        raise ValueError(f"ways, shots and queries must be positive, not {ways}, {shots} and {queries}")
    if ways > data.num_classes:
        raise DataError(f"{ways} ways, but only {data.num_classes} classes", "episode", "ask for fewer ways")
    classes = rng.choice(data.num_classes, ways, replace=False)
    drawn = np.stack([_draw_samples(data, int(label), shots + queries, rng) for label in classes], axis=1)
    support, query = drawn[:shots].ravel(), drawn[shots:].ravel()  # of (samples per class, ways): class-interleaved
    return Episode(
        support_x=data.images[support],
        support_y=np.tile(np.arange(ways), shots),
        query_x=data.images[query],
        query_y=np.tile(np.arange(ways), queries),
        class_names=tuple(data.class_names[label] for label in classes),
    )


def _draw_samples(data: ClassImages, label: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    available = data.indices_of(label)
    if count > len(available):
        name = data.class_names[label]
        raise DataError(
            f"needs {count} images per class, {name!r} has {len(available)}",
            "episode",
            "ask for fewer shots or queries",
        )
    return rng.choice(available, count, replace=False)
