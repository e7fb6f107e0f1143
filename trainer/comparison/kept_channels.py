"""How many channels meta attention really keeps, by task, step and sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pmeta.codegen.taskfile import Task
from pmeta.trainer.comparison.costs import KeptChannels
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.inner_loop import LayerPass
from pmeta.trainer.trained import Trained

Counts = NDArray[np.int64]


def kept_channels(
    trained: Trained, tasks: Sequence[Task], advance: Callable[[int], None] | None = None
) -> KeptChannels:
    """Adapt to every task and count, for each layer with attention, the channels whose γ is not zero.

    A direction without attention keeps all. `advance` is told how many tasks are done.
    """
    found: dict[str, list[Counts]] = {layer: [] for layer in trained.meta["attention"]}
    for task in tasks:
        for layer, counts in _of_task(trained, task).items():
            found[layer].append(counts)
        if advance is not None:
            advance(1)
    return {layer: np.stack(counts) for layer, counts in found.items()}


def _of_task(trained: Trained, task: Task) -> dict[str, Counts]:
    """By layer with attention: (K, samples, 2)."""
    inner, meta, micro_batch = trained.inner, trained.meta, trained.sample_batch
    batch = task_batch([task], trained.encoding, meta["alpha"].device)
    x, y = batch.support_x[0], batch.support_y[0]
    steps: dict[str, list[Counts]] = {layer: [] for layer in meta["attention"]}
    with torch.no_grad():
        features = inner.network.below(meta["weights"], x, inner.lowest)
        before = [meta["weights"], *inner.trajectory(meta, features, y, micro_batch)][:-1]
        for weights in before:
            for found in inner.layer_passes(meta, weights, features, y, micro_batch):
                if found.layer.name in steps:
                    steps[found.layer.name].append(_kept(found))
    return {layer: np.stack(counts) for layer, counts in steps.items()}


def _kept(found: LayerPass) -> Counts:
    """(samples, 2): input and output channels that are kept."""
    sides = ((found.fw, found.x.shape[1]), (found.bw, found.g.shape[1]))
    counts = [np.full(len(found.x), channels) if gamma is None else (gamma != 0).sum(-1).cpu().numpy()
              for gamma, channels in sides]  # fmt: skip
    return np.stack(counts, -1).astype(np.int64)
