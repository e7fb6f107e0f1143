"""How much adaptation updates, and how alike samples are in what they update: Fig. 5 of the paper, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.taskfile import Task
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.inner_loop import LayerPass
from pmeta.trainer.operators import reweighted
from pmeta.trainer.trained import Trained

PAIRS = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelStatistics:
    """Means and standard deviations, by layer; JSON values.

    The updating ratio of a layer in a step is the share of its weights that a micro-batch updates: 0 where the step
    size is zero, else what attention (and α^Ch) leaves. Of a task, the mean over its micro-batches.
    The similarity is the cosine of the angle between γ_l = γ^fw·γ^bw of two samples in step 1, each its own
    micro-batch; 1 for a layer without attention, None for one that does not learn in step 1.
    """

    layers: tuple[str, ...]
    tasks: int
    pairs: int  # of samples, drawn at random from all tasks
    ratio_mean: tuple[tuple[float, ...], ...]  # (K, L), over tasks
    ratio_deviation: tuple[tuple[float, ...], ...]
    similarity_mean: tuple[float | None, ...]  # (L,), over pairs
    similarity_deviation: tuple[float | None, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def channel_statistics(
    trained: Trained, tasks: Sequence[Task], seed: int = 0, advance: Callable[[int], None] | None = None
) -> ChannelStatistics:
    """Adapt to every task and look; `seed` chooses the pairs, `advance` is told how many tasks are done.

    Raises UnsupportedError where attention weighs maps instead of weight gradients.
    """
    if trained.inner.sparsify != "gradient":
        what = f"attention weighs maps (method.sparsify = '{trained.inner.sparsify}')"
        raise UnsupportedError(what, "the model", "use one in which it weighs weight gradients")
    ratios: list[Floats] = []
    scores: list[dict[str, tuple[Tensor, ...]]] = []
    for task in tasks:
        ratio, own_scores = _one_task(trained, task)
        ratios.append(ratio)
        scores.append(own_scores)
        if advance is not None:
            advance(1)
    by_task = np.stack(ratios)
    names = tuple(layer.name for layer in trained.inner.graph.layers)
    pairs, similarity = _similarities(names, scores, sum(len(task.support_y) for task in tasks), seed)
    return ChannelStatistics(
        names, len(tasks), pairs, _rows(by_task.mean(0)), _rows(by_task.std(0)),
        tuple(None if found is None else float(found.mean()) for found in similarity),
        tuple(None if found is None else float(found.std()) for found in similarity),
    )  # fmt: skip


def _one_task(trained: Trained, task: Task) -> tuple[Floats, dict[str, tuple[Tensor, ...]]]:
    """(updating ratios (K, L), by layer that learns in step 1: γ of every support sample)."""
    inner, meta = trained.inner, trained.meta
    layers = inner.graph.layers
    device = meta["alpha"].device
    batch = task_batch([task], trained.encoding, device)
    x, y = batch.support_x[0], batch.support_y[0]
    with torch.no_grad():
        features = inner.network.below(meta["weights"], x, inner.lowest)
        moments = [meta["weights"], *inner.trajectory(meta, features, y, trained.sample_batch)][:-1]
        ratios = np.zeros((inner.steps, len(layers)))
        for k, weights in enumerate(moments):
            passes = inner.layer_passes(meta, weights, features, y, trained.sample_batch)
            found = {one.layer.name: _updating_ratio(trained, one) for one in passes}
            for number, layer in enumerate(layers):
                ratios[k, number] = found.get(layer.name, 0.0) if meta["alpha"][number, k] != 0 else 0.0
        singly = inner.layer_passes(meta, meta["weights"], features, y, micro_batch=1)
    step_sizes = dict(zip((layer.name for layer in layers), meta["alpha"][:, 0].tolist(), strict=True))
    return ratios, {one.layer.name: _directions(one) for one in singly if step_sizes[one.layer.name] != 0}


def _updating_ratio(trained: Trained, found: LayerPass) -> float:
    """Share of a layer's weights whose gradient is not zero by γ and α^Ch, as a mean over the samples."""
    names, weights = found.layer.weight_names, trained.meta["weights"]
    # All taps of a kernel share their channels' factors: one of them is enough.
    taps = {name: torch.ones_like(weights[name].flatten(2)[..., :1] if weights[name].dim() > 2 else weights[name])
            for name in names}  # fmt: skip
    taps = {name: tap.reshape(*tap.shape[:2], *[1] * (weights[name].dim() - 2)) for name, tap in taps.items()}
    static = trained.meta.get("channel_alpha", {}).get(found.layer.name, {})
    taps = reweighted(found.layer, taps, static.get("in"), static.get("out"))
    samples = len(found.x) if found.fw is not None or found.bw is not None else 1
    updated = 0.0
    for sample in range(samples):
        gammas = (None if gamma is None else gamma[sample] for gamma in (found.fw, found.bw))
        for name, tap in reweighted(found.layer, taps, *gammas).items():
            if name in trained.inner.learning:
                share: float = (tap != 0).double().mean().item()
                updated += weights[name].numel() * share
    return updated / samples / sum(int(weights[name].numel()) for name in names)


def _directions(found: LayerPass) -> tuple[Tensor, ...]:
    """γ^fw and γ^bw of every sample, those of the two that the layer has, at length 1; (N, C)."""
    return tuple(
        torch.nn.functional.normalize(gamma.cpu().double(), dim=1)
        for gamma in (found.fw, found.bw)
        if gamma is not None
    )


def _similarities(
    names: Sequence[str], scores: Sequence[dict[str, tuple[Tensor, ...]]], samples: int, seed: int
) -> tuple[int, list[Floats | None]]:
    """(number of pairs, by layer the cosines of all pairs); samples: of all tasks.

    γ_l is an outer product, so its cosine is that of γ^fw times that of γ^bw.
    """
    if samples < 2:
        return 0, [None] * len(names)
    rng = np.random.default_rng(seed)
    first = rng.integers(samples, size=PAIRS)
    second = (first + rng.integers(1, samples, size=PAIRS)) % samples  # another one
    found: list[Floats | None] = []
    for name in names:
        if not all(name in own for own in scores):
            found.append(None)
            continue
        cosines = np.ones(PAIRS)
        for sides in zip(*(own[name] for own in scores), strict=True):
            unit = torch.cat(sides).numpy()
            cosines *= (unit[first] * unit[second]).sum(1)
        found.append(cosines)
    return PAIRS, found


def _rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in table)
