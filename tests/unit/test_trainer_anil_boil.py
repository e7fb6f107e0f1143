"""Step sizes of zero are ANIL and BOIL: the meta-gradient equals theirs, written out by hand with torch alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pmeta.codegen.networks import four_conv  # noqa: E402
from pmeta.trainer.inner_loop import InnerLoop  # noqa: E402
from pmeta.trainer.networks import Network, weight_tensors  # noqa: E402
from pmeta.trainer.objective import TaskBatch, meta_gradient  # noqa: E402

pytestmark = pytest.mark.unit

WAYS, SAMPLES, STEPS, TASKS, ALPHA = 3, 6, 3, 2, 0.3
GRAPH = four_conv((2, 8, 8), WAYS, width=4, groups=2, rng=np.random.default_rng(0), blocks=2)
HEAD = ("fc.weight", "fc.bias")
Weights = dict[str, Tensor]


def initial_weights() -> Weights:
    generator = torch.Generator().manual_seed(3)
    return {
        name: w.double() + 0.2 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in weight_tensors(GRAPH).items()
    }


def tasks() -> TaskBatch:
    generator = torch.Generator().manual_seed(4)
    labels = torch.eye(WAYS, dtype=torch.float64).repeat(SAMPLES // WAYS, 1).expand(TASKS, -1, -1)

    def images() -> Tensor:
        return torch.randn(TASKS, SAMPLES, 2, 8, 8, generator=generator, dtype=torch.float64)

    return TaskBatch(images(), labels, images(), labels)


def by_masks(learning_rows: slice, skipped: bool) -> tuple[dict[str, Any], Tensor]:
    """Meta-gradient and losses of the inner loop; layers that do not learn have α = 0, or are skipped altogether."""
    alpha = torch.zeros(len(GRAPH.layers), STEPS, dtype=torch.float64)
    alpha[learning_rows] = ALPHA
    layers = GRAPH.layers[learning_rows] if skipped else GRAPH.layers
    inner = InnerLoop(Network(GRAPH), STEPS, frozenset(n for layer in layers for n in layer.weight_names), 0, 0)
    meta = {"weights": initial_weights(), "alpha": alpha, "attention": {}}
    gradient, losses, _ = meta_gradient(inner, meta, tasks())
    return gradient, losses


# --- by hand -------------------------------------------------------------------------------------------------


def features(body: Weights, x: Tensor) -> Tensor:
    for i in (1, 2):
        x = F.conv2d(x, body[f"conv{i}.weight"], padding=1)
        x = F.group_norm(x, 2, body[f"norm{i}.weight"], body[f"norm{i}.bias"], 1e-5)
        x = F.max_pool2d(F.relu(x), 2)
    return x.flatten(1)


def anil_loss(weights: Weights, task: tuple[Tensor, ...]) -> Tensor:
    """Query loss of a head that learned on features that did not change."""
    support_x, support_y, query_x, query_y = task
    phi = features(weights, support_x)
    w, b = (weights[name] for name in HEAD)
    for _ in range(STEPS):
        loss = F.cross_entropy(F.linear(phi, w, b), support_y.argmax(1))
        gw, gb = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - ALPHA * gw, b - ALPHA * gb
    return F.cross_entropy(F.linear(features(weights, query_x), w, b), query_y.argmax(1))


def boil_loss(weights: Weights, task: tuple[Tensor, ...]) -> Tensor:
    """Query loss of features that learned below a head that did not change."""
    support_x, support_y, query_x, query_y = task
    head = [weights[name] for name in HEAD]
    body = {name: weight for name, weight in weights.items() if name not in HEAD}
    for _ in range(STEPS):
        loss = F.cross_entropy(F.linear(features(body, support_x), *head), support_y.argmax(1))
        found = torch.autograd.grad(loss, list(body.values()), create_graph=True)
        body = {name: w - ALPHA * g for (name, w), g in zip(body.items(), found, strict=True)}
    return F.cross_entropy(F.linear(features(body, query_x), *head), query_y.argmax(1))


@pytest.mark.parametrize("skipped", [False, True], ids=["step sizes of zero", "layers skipped"])
@pytest.mark.parametrize(
    ("query_loss", "learning"), [(anil_loss, slice(-1, None)), (boil_loss, slice(None, -1))], ids=["anil", "boil"]
)
def test_masks_equal_the_method_by_hand(query_loss: Any, learning: slice, skipped: bool) -> None:
    gradient, losses = by_masks(learning, skipped)
    weights = {name: w.requires_grad_() for name, w in initial_weights().items()}
    expected = [query_loss(weights, tuple(t[i] for t in tasks().tensors())) for i in range(TASKS)]
    torch.testing.assert_close(losses, torch.stack(expected).detach(), rtol=1e-9, atol=0)
    by_hand = torch.autograd.grad(sum(expected) / TASKS, list(weights.values()))
    for (name, _), reference in zip(weights.items(), by_hand, strict=True):
        mine = gradient["weights"][name]
        assert (mine - reference).norm() < 1e-9 * reference.norm(), name
