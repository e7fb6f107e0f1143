"""Tanh: hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pmeta.codegen.operators.activation import SmoothActivation


@dataclass(frozen=True)
class Tanh(SmoothActivation):
    """y = tanh(x)."""

    kernel: ClassVar[str] = "pmeta_tanh"
