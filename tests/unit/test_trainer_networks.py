"""One step of each network in the inner loop is the gradient that autograd finds for it. (Every operator, against the
simulator: tests/differential/test_trainer_networks.py.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from pmeta.codegen.graph import Shape  # noqa: E402
from pmeta.trainer.architectures import architecture  # noqa: E402
from pmeta.trainer.inner_loop import InnerLoop  # noqa: E402
from pmeta.trainer.networks import Network, weight_tensors  # noqa: E402

pytestmark = pytest.mark.unit

WAYS, SAMPLES, STEP_SIZE = 3, 5, 0.25
NETWORKS: list[tuple[dict[str, Any], Shape]] = [
    ({"name": "4conv", "width": 4, "groups": 2, "blocks": 2}, (2, 9, 8)),
    ({"name": "resnet12", "channels": [4, 6], "groups": 2}, (1, 8, 8)),
    ({"name": "mlp", "hidden": [6, 5]}, (3, 4, 4)),
    ({"name": "mlp", "hidden": []}, (7,)),
    ({"name": "conv1d", "width": 4, "groups": 2, "blocks": 2, "kernel": 4}, (3, 20)),
]


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
@pytest.mark.parametrize(("options", "shape"), NETWORKS, ids=lambda value: str(value)[:24])
def test_a_step_is_the_gradient(options: dict[str, Any], shape: Shape, convolution: str) -> None:
    graph = architecture(options, "test").graph(shape, WAYS, np.random.default_rng(0))
    network = Network(graph, convolution)
    weights = {name: weight.double().requires_grad_() for name, weight in weight_tensors(graph).items()}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(SAMPLES) % WAYS

    logits = network.forward(weights, x)
    assert logits.shape == (SAMPLES, WAYS)
    gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(weights.values()))

    inner = InnerLoop(network, steps=1, learning=frozenset(weights), rho_fw=0, rho_bw=0)
    alpha = torch.full((len(graph.layers), 1), STEP_SIZE, dtype=torch.float64)
    meta = {"weights": weights, "alpha": alpha, "attention": {}}
    adapted = inner.adapt(meta, x, F.one_hot(labels, WAYS).double())
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        torch.testing.assert_close(adapted[name], weight - STEP_SIZE * gradient, rtol=1e-9, atol=1e-12)
        assert gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize("first", range(8))
def test_the_lower_part_is_computed_once(first: int) -> None:
    """`forward` from what `below` gives is `forward` from the samples, wherever a network with branches is cut."""
    graph = architecture({"name": "resnet12", "channels": [4], "groups": 2}, "test").graph(
        (1, 6, 6), WAYS, np.random.default_rng(0)
    )
    network, weights = Network(graph), weight_tensors(graph)
    x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    cut = network.below(weights, x, 2 * first)
    again = {name for node in network.nodes[2 * first :] for name in node.inputs}
    assert set(cut) <= again | {graph.output}, "it holds nothing that no later node reads"
    torch.testing.assert_close(network.forward(weights, cut, first=2 * first), network.forward(weights, x))
