"""Sigmoid: the logistic function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pmeta.codegen.operators.activation import SmoothActivation


@dataclass(frozen=True)
class Sigmoid(SmoothActivation):
    """y = 1 ÷ (1 + exp(−x))."""

    kernel: ClassVar[str] = "pmeta_sigmoid"
