"""What a sample teaches: a class, or numbers that the network should give for it (`LossHead` decides which)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import LossHead
from pmeta.codegen.graph import Float32Array

Target: TypeAlias = int | Float32Array  # a class 0 .. ways - 1; or (ways,) finite numbers


def target_problem(target: Target, loss: LossHead, ways: int) -> str | None:
    """Why the device refuses this target; None where it does not."""
    if loss == "softmax_cross_entropy":
        if not isinstance(target, int):
            return "a target is no class"
        return None if 0 <= target < ways else f"label {target} is not below {ways}"
    if isinstance(target, int) or target.dtype != np.float32 or target.shape != (ways,):
        return f"a target is not float32 of shape ({ways},)"
    return None if np.isfinite(target).all() else "a target has a number that is not finite"


def target_bytes(target: Target) -> bytes:
    """As the device sees it, little-endian: a class as uint32, numbers as float32."""
    return target.to_bytes(4, "little") if isinstance(target, int) else target.astype("<f4").tobytes()


def targets_of(y: npt.NDArray[Any]) -> list[Target]:
    """One target per sample, of a task's labels (N,) or targets (N, ways)."""
    return [int(label) for label in y] if y.ndim == 1 else list(y)
