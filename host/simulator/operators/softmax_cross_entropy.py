"""Softmax cross-entropy of one sample: its loss, and the gradient that starts the backward pass."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.arithmetic import log32, softmax


def loss_and_gradient(logits: Float32Array, label: int) -> tuple[np.float32, Float32Array]:
    """(loss, g (ways,)) of logits (ways,): log(S) − (o_t − m), and p with 1 taken off at the label."""
    probabilities, maximum, total = softmax(logits)
    loss = np.float32(log32(total)) - (logits[label] - maximum)
    gradient = probabilities.copy()
    gradient[label] = probabilities[label] - np.float32(1)
    return loss, gradient
