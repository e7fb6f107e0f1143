"""The trainer's interpretation of any network: forward, adaptation, and the meta-gradient of all its operators.

Random networks (`tests.networks`) have every operator, branches, windows of every kind, samples of one row and vectors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.codegen.adaptation import Model  # noqa: E402
from pmeta.codegen.operators import OPERATORS  # noqa: E402
from pmeta.host.simulator import Simulator  # noqa: E402
from pmeta.trainer.export import from_model  # noqa: E402
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters  # noqa: E402
from pmeta.trainer.objective import TaskBatch, meta_gradient  # noqa: E402
from tests.models import as_pytorch, random_samples  # noqa: E402
from tests.networks import random_network  # noqa: E402
from tests.reference import torch_adaptation as reference  # noqa: E402

pytestmark = pytest.mark.differential

CPU = torch.device("cpu")
SAMPLES, TASKS = 4, 2


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def classifier(seed: int) -> Model:
    """A random network that learns classes, in plain float32."""
    model = as_pytorch(random_network(seed))
    return replace(model, adaptation=replace(model.adaptation, loss="softmax_cross_entropy"))


def in_float64(model: Model, convolution: str = "direct") -> tuple[InnerLoop, MetaParameters]:
    inner, meta = from_model(model, CPU)
    inner = replace(inner, network=replace(inner.network, convolution=convolution))
    return inner, tree_map(lambda tensor: tensor.double(), meta)


def one_hot(labels: np.ndarray, ways: int) -> torch.Tensor:
    return torch.eye(ways, dtype=torch.float64)[torch.from_numpy(labels)]


def test_random_networks_have_every_operator() -> None:
    found = {type(node) for seed in range(60) for node in classifier(seed).graph.nodes}
    assert found == set(OPERATORS.values())


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
def test_forward_follows_the_simulator(convolution: str) -> None:
    for seed in range(60):
        model = classifier(seed)
        samples, _ = random_samples(model, seed, SAMPLES)
        inner, meta = from_model(model, CPU)
        network = replace(inner.network, convolution=convolution)
        logits = network.forward(meta["weights"], reference.decode(model, samples, torch.float32))
        simulator = Simulator(model)
        expected = np.stack([simulator.predict(sample) for sample in samples])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=f"seed {seed}")


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
def test_adaptation_follows_autograd(convolution: str) -> None:
    """In float64, so that both decide alike; autograd follows the simulator in test_random_networks.py."""
    for seed in range(60):
        model = classifier(seed)
        samples, labels = random_samples(model, seed, SAMPLES)
        x = reference.decode(model, samples, torch.float64)
        inner, meta = in_float64(model, convolution)
        with torch.no_grad():
            adapted = inner.adapt(meta, x, one_hot(labels, model.adaptation.ways), micro_batch=1)
        expected = reference.adapt(model, x, labels)
        largest = max(float(weight.abs().max()) for weight in expected.values())
        for name, weight in expected.items():
            torch.testing.assert_close(
                adapted[name],
                weight,
                rtol=0,
                atol=1e-9 * largest,
                msg=lambda text, at=f"{seed} {name}": f"{at}: {text}",
            )


def some_tasks(model: Model, seed: int) -> TaskBatch:
    """In float64 and a little off the samples, which are equal, or multiples of 1/4, too often for derivatives."""
    drawn = [random_samples(model, 10 * seed + task, 2 * SAMPLES) for task in range(TASKS)]
    x = torch.stack([reference.decode(model, samples, torch.float64) for samples, _ in drawn])
    x = x + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    y = torch.stack([one_hot(labels, model.adaptation.ways) for _, labels in drawn])
    return TaskBatch(x[:, :SAMPLES], y[:, :SAMPLES], x[:, SAMPLES:], y[:, SAMPLES:])


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
def test_meta_gradient_is_the_slope_of_the_query_loss(convolution: str) -> None:
    """Through all steps, tasks batched. Clip ratios are 0: elsewhere attention's gradient is a substitute for it."""
    generator = torch.Generator().manual_seed(0)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    for seed in range(30):
        model = classifier(seed)
        model = replace(model, adaptation=replace(model.adaptation, rho_fw=0, rho_bw=0))
        inner, meta = in_float64(model, convolution)
        meta["weights"] = tree_map(lambda weight: weight + 1e-3 * noise(weight), meta["weights"])
        tasks, direction = some_tasks(model, seed), tree_map(noise, meta)
        gradient, _, _ = meta_gradient(inner, meta, tasks)
        slope = sum(float((a * b).sum()) for a, b in zip(tree_leaves(gradient), tree_leaves(direction), strict=True))
        # A longer step may cross the kink of an activation, a shorter one is less exact.
        found = [difference_quotient(inner, meta, direction, tasks, step) for step in (1e-6, 1e-7, 1e-8)]
        error = min(abs(quotient - slope) for quotient in found)
        assert error < 1e-6 * max(abs(slope), 1e-2), f"seed {seed}: {slope}, {found}"


def difference_quotient(
    inner: InnerLoop, meta: MetaParameters, direction: MetaParameters, tasks: TaskBatch, step: float
) -> float:
    losses = []
    for sign in (1, -1):
        moved = tree_map(lambda value, change: value + sign * step * change, meta, direction)  # noqa: B023
        losses.append(float(meta_gradient(inner, moved, tasks)[1].mean()))
    return (losses[0] - losses[1]) / (2 * step)
