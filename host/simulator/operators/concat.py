"""Concat: the channels of all inputs, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Concat
from pmeta.host.simulator.operators.operator import JoinOperator, Weights

Bounds = tuple[int, ...]  # 0, then after each input the number of channels so far


class ConcatOperator(JoinOperator[Concat, Bounds]):
    """Saves which channels belong to which input."""

    def join(self, node: Concat, weights: Weights, inputs: Sequence[Float32Array]) -> tuple[Float32Array, Bounds]:
        bounds = np.cumsum([0, *(len(x) for x in inputs)])
        return np.concatenate(inputs), tuple(int(bound) for bound in bounds)

    def input_gradients(
        self, node: Concat, weights: Weights, saved: Bounds, gy: Float32Array
    ) -> tuple[Float32Array, ...]:
        return tuple(gy[begin:end] for begin, end in pairwise(saved))
