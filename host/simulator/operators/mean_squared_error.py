"""Mean squared error of one sample: its loss, and the gradient that starts the backward pass."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.arithmetic import lane_sum


def loss_and_gradient(outputs: Float32Array, target: Float32Array) -> tuple[np.float32, Float32Array]:
    """(loss, g (n,)) of outputs and target (n,), with d = y − t: lanesum(d·d) ÷ n, and (2·d) ÷ n."""
    count = np.float32(outputs.size)
    difference = outputs - target
    loss = np.float32(lane_sum(difference * difference)) / count
    return loss, np.float32(2) * difference / count
