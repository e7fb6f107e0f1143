"""What happens while a task is adapted, as a stream; device and simulator emit the same, so they can be compared.

The order: QueryDone "before" for every query sample; per step a SampleDone for every support sample, then a StepDone;
QueryDone "after" for every query sample. A device that keeps the support set in RAM emits a SampleKept for every one of
its samples before step 1. It may emit Resumed in between; the others are never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Phase = Literal["before", "after"]


@dataclass(frozen=True)
class QueryDone:
    """Prediction for one query sample, before or after adaptation."""

    phase: Phase
    index: int  # from 0
    logits: Float32Array  # (ways,): logits, or with mean squared error outputs


@dataclass(frozen=True)
class SampleDone:
    """One support sample was accumulated; computed with the weights before the step."""

    step: int  # 1 .. K
    index: int  # from 0
    logits: Float32Array  # (ways,): logits, or with mean squared error outputs
    loss: np.float32


@dataclass(frozen=True)
class StepDone:
    """The weights were updated."""

    step: int  # 1 .. K
    crcs: tuple[int, ...]  # CRC-32 of the canonical bytes of every learned tensor, in the manifest's order


@dataclass(frozen=True)
class Resumed:
    """The device had lost the session, for example by restarting; adaptation goes on from here."""

    step: int
    samples: int  # that the device has of this step


@dataclass(frozen=True)
class SampleKept:
    """The device keeps one more support sample, and needs it no more from outside."""

    index: int  # from 0


Event: TypeAlias = QueryDone | SampleDone | StepDone | Resumed | SampleKept
