"""How far raw pixels get: nearest class mean on the icons test split, without any learning.

python benchmarks/icons_nearest_mean.py --tasks 1000
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from pmeta.codegen.taskfile import Task
from pmeta.trainer.datasets.episodes import Episode, sample_episode
from pmeta.trainer.datasets.icons import load_icons


def nearest_mean_accuracy(episode: Episode | Task) -> float:
    """Returns the share of queries whose nearest class mean (Euclidean, raw pixels) is their own."""
    support, query = _pixels(episode.support_x), _pixels(episode.query_x)
    means = np.stack([support[episode.support_y == label].mean(axis=0) for label in range(episode.ways)])
    distances = ((query[:, np.newaxis] - means) ** 2).sum(axis=-1)  # (queries, ways)
    return float((distances.argmin(axis=1) == episode.query_y).mean())


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def main(
    tasks: Annotated[int, typer.Option(min=2)] = 1000,
    ways: Annotated[int, typer.Option(min=2)] = 5,
    shots: Annotated[int, typer.Option(min=1)] = 5,
    queries: Annotated[int, typer.Option(min=1)] = 15,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Prints the mean accuracy over tasks of the test split, with its 95 % interval."""
    data = load_icons("test")
    scores = [
        nearest_mean_accuracy(sample_episode(data, ways, shots, queries, np.random.default_rng([seed, number])))
        for number in range(tasks)
    ]
    interval = 1.96 * np.std(scores, ddof=1) / np.sqrt(tasks)
    print(f"{ways}-way {shots}-shot, {tasks} tasks: {100 * np.mean(scores):.2f} % ± {100 * interval:.2f}")


if __name__ == "__main__":
    typer.run(main)
