"""Means with their 95 % intervals, over the seeds of trainings and over test tasks."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; of more, the last one is a little too large.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
NORMAL = 1.96


@dataclass(frozen=True)
class Mean:
    """A mean and the half-width of its 95 % interval."""

    mean: float
    interval: float


def mean_and_interval(values: Floats) -> tuple[float, float]:
    """Over tasks, (N,): (mean, half-width of its 95 % interval)."""
    return float(np.mean(values)), NORMAL * _standard_error(values)


def mean_over(values: Floats) -> Mean:
    """values: (seeds, tasks), every seed's model on the same tasks.

    The interval has a part for the tasks and, where there are several seeds, one for them by Student's t. What a seed
    does on single tasks is in both parts: with several seeds the interval is a little too wide.
    """
    tasks = NORMAL * _standard_error(values.mean(0))
    seeds = 0.0
    if len(values) > 1:
        seeds = STUDENT[min(len(values) - 1, len(STUDENT)) - 1] * _standard_error(values.mean(1))
    return Mean(float(values.mean()), sqrt(tasks**2 + seeds**2))


def _standard_error(values: Floats) -> float:
    """Of the mean of a sample; 0 of a single value, which does not tell."""
    return float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
