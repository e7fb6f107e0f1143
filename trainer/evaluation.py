"""Accuracy before and after adaptation, at the device's sample batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import torch

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.taskfile import Task
from pmeta.trainer.encoding import decode
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.objective import TaskBatch, accuracies

TASKS_AT_ONCE = {"cpu": 4, "cuda": 50}


@dataclass(frozen=True)
class Evaluation:
    """Means over tasks, in 0..1, with the half-width of their 95 % confidence interval (1.96 standard errors)."""

    tasks: int
    before: float
    before_interval: float
    after: float
    after_interval: float
    loss: float  # query loss after adaptation

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate(
    inner: InnerLoop,
    meta: MetaParameters,
    tasks: Sequence[Task],
    encoding: InputEncoding,
    sample_batch: int,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Adapt to every task and measure. All tasks have the same sizes; `advance` is told how many are done."""
    at_once = TASKS_AT_ONCE[device.type]
    before: list[float] = []
    after: list[float] = []
    loss: list[float] = []
    for start in range(0, len(tasks), at_once):
        part = tasks[start : start + at_once]
        results = accuracies(inner, meta, task_batch(part, encoding, device), sample_batch)
        for values, result in zip((before, after, loss), results, strict=True):
            values.extend(result.tolist())
        if advance is not None:
            advance(len(part))
    return Evaluation(len(tasks), *_mean_and_interval(before), *_mean_and_interval(after), float(np.mean(loss)))


def task_batch(tasks: Sequence[Task], encoding: InputEncoding, device: torch.device) -> TaskBatch:
    """Tasks of equal sizes as one batch on `device`."""
    one_hot = torch.eye(tasks[0].ways, device=device)

    def samples(arrays: list[npt.NDArray[np.uint8]]) -> torch.Tensor:
        return decode(torch.from_numpy(np.stack(arrays)).to(device), encoding)

    def labels(arrays: list[npt.NDArray[np.uint8]]) -> torch.Tensor:
        return one_hot[torch.from_numpy(np.stack(arrays).astype(np.int64)).to(device)]

    return TaskBatch(
        samples([t.support_x for t in tasks]), labels([t.support_y for t in tasks]),
        samples([t.query_x for t in tasks]), labels([t.query_y for t in tasks]),
    )  # fmt: skip


def _mean_and_interval(values: list[float]) -> tuple[float, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), 1.96 * deviation / sqrt(len(values))
