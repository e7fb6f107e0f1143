"""PyTorch ≈ simulator: gradients, discrete decisions and predictions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.torch_vs_simulator import (  # noqa: E402
    Comparison,
    compare,
    forced_gradients,
    relative_error,
    simulate_step,
    torch_weights,
)
from pmeta.codegen.adaptation import Model  # noqa: E402
from pmeta.codegen.storage import Storage  # noqa: E402
from pmeta.host.simulator import Simulator  # noqa: E402
from tests.models import random_4conv, random_chain, random_samples, regression, with_storage  # noqa: E402
from tests.reference import torch_adaptation  # noqa: E402

pytestmark = pytest.mark.differential

TOLERANCE = 1e-4  # of a tensor's largest gradient
CHAINS = 60


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


def chain_errors(model: Model, seed: int) -> list[tuple[float, float]]:
    """Per step and tensor: (error of the simulator, error of PyTorch's own float32), both against float64."""
    support_x, support_y = random_samples(model, seed, 4)
    simulator = Simulator(model)
    errors = []
    while not simulator.finished:
        step = simulator.step
        weights = {dtype: torch_weights(simulator, dtype) for dtype in (torch.float32, torch.float64)}
        simulated = simulate_step(model, simulator, support_x, support_y)
        single, double = (
            forced_gradients(
                model, at, step, torch_adaptation.decode(model, support_x, dtype), support_y, simulated.decisions
            )
            for dtype, at in weights.items()
        )
        for name, gradient in simulated.gradients.items():
            errors.append((relative_error(gradient, double[name]), relative_error(single[name], double[name])))
    return errors


def drawn_chain(seed: int) -> Model:
    """Some learn numbers."""
    model = with_storage(random_chain(np.random.default_rng(seed)), Storage())
    return regression(model) if seed % 4 == 3 else model


def test_random_chains_follow_pytorch() -> None:
    """Any operators, windows, step sizes and loss heads.

    Some gradients of such chains are zero but for rounding (a bias below a normalization of its channel, a
    normalization of two pixels). They are told by PyTorch's own float32, which loses them too.
    """
    errors = [error for seed in range(CHAINS) for error in chain_errors(drawn_chain(seed), seed)]
    sound = [simulated for simulated, pytorch in errors if pytorch < TOLERANCE / 100]
    assert len(sound) > 0.8 * len(errors) > 0
    assert max(sound) < TOLERANCE
