"""PyTorch ≈ simulator, for a 4Conv: gradients, decisions and predictions. (Any network: test_random_networks.py.)"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.torch_vs_simulator import (  # noqa: E402
    Comparison,
    compare,
    simulate_step,
)
from pmeta.host.simulator import Simulator  # noqa: E402
from tests.models import random_4conv, random_samples  # noqa: E402

pytestmark = pytest.mark.differential

TOLERANCE = 1e-4  # of a tensor's largest gradient


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def some_alpha(layers: int = 9, steps: int = 3) -> np.ndarray:
    alpha = np.full((layers, steps), 0.05)
    alpha[:2, 0] = 0  # the first block rests in the first step,
    alpha[6, 1] = 0  # a layer in the middle in the second,
    alpha[:4, 2] = 0  # and the lower half in the last
    return alpha


def test_4conv_follows_pytorch() -> None:
    """5-way tasks, 25 support samples × 3 steps; 1,000 queries in all; with attention in both directions."""
    result = Comparison()
    for seed in range(2):
        model = random_4conv(seed, width=8, alpha=some_alpha())
        support_x, support_y = random_samples(model, seed, 25)
        query_x, _ = random_samples(model, 100 + seed, 500)
        compare(model, support_x, support_y, query_x, result)
    assert len(result.gradient_error) == 14  # four times conv and the two of GN, and the two of the last layer
    assert min(result.gradient_error.values()) > 0  # no tensor was all zeros
    assert result.worst_gradient_error < TOLERANCE
    assert result.samples == 150 and result.differing["any"] <= 0.01 * result.samples
    assert result.queries == 1000 and result.agreeing >= 0.99 * result.queries


def test_adaptation_changes_what_is_predicted() -> None:
    """Otherwise agreeing on predictions would say little about adaptation."""
    model = random_4conv(0, width=8, alpha=some_alpha())
    (support_x, support_y), (query_x, _) = random_samples(model, 0, 25), random_samples(model, 100, 50)
    simulator = Simulator(model)
    before = [int(np.argmax(simulator.predict(sample))) for sample in query_x]
    while not simulator.finished:
        simulate_step(model, simulator, support_x, support_y)
    after = [int(np.argmax(simulator.predict(sample))) for sample in query_x]
    assert np.mean(np.not_equal(before, after)) > 0.2
