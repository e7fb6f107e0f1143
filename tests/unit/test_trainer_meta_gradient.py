"""The meta-gradient against a plain loop, in float64: no vmap, no probes, one sample after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.codegen.graph import Graph  # noqa: E402
from pmeta.codegen.networks import four_conv  # noqa: E402
from pmeta.trainer.attention import initial_module  # noqa: E402
from pmeta.trainer.inner_loop import InnerLoop  # noqa: E402
from pmeta.trainer.methods import Sparsify  # noqa: E402
from pmeta.trainer.network_variants import varied  # noqa: E402
from pmeta.trainer.networks import Network, weight_tensors  # noqa: E402
from pmeta.trainer.objective import TaskBatch, accuracies, meta_gradient  # noqa: E402
from tests.reference.inner_loop import PlainLoop  # noqa: E402

pytestmark = pytest.mark.unit

WAYS, SHOTS, QUERIES, STEPS, TASKS = 3, 2, 2, 2, 2
RHO_FW, RHO_BW = 300, 250


@pytest.fixture
def graph() -> Graph:
    return four_conv((2, 8, 8), WAYS, width=4, groups=2, rng=np.random.default_rng(0), blocks=2)


def meta_parameters(
    graph: Graph, directions: tuple[str, ...] = ("fw", "bw"), channel_alpha: bool = False
) -> dict[str, Any]:
    """Random meta-parameters in float64; the step sizes of some layers and steps are zero."""
    rng = np.random.default_rng(1)
    alpha = torch.from_numpy(rng.uniform(0.1, 0.5, (len(graph.layers), STEPS)))
    alpha[1] = 0.0
    alpha[2, 0] = 0.0
    modules: dict[str, Any] = {}
    for layer in graph.layers[:-1] if directions else ():
        channels = dict(zip(("fw", "bw"), layer.attention_channels(graph.shapes[layer.input]), strict=True))
        modules[layer.name] = {direction: initial_module(channels[direction], rng) for direction in directions}
    rates: dict[str, Any] = {}
    for layer in graph.layers if channel_alpha else ():
        inputs, outputs = layer.attention_channels(graph.shapes[layer.input])
        rates[layer.name] = {"in": torch.ones(inputs), "out": torch.ones(outputs)}
    meta = {"weights": weight_tensors(graph), "alpha": alpha, "attention": modules, "channel_alpha": rates}

    # Large random values: softmax outputs far from uniform and from each other, scales other than one.
    def randomized(t: Tensor) -> Tensor:
        return t.double() + torch.from_numpy(rng.normal(0, 0.3, t.shape)) * (t.dim() < 4)

    return tree_map(lambda t: t if t is alpha else randomized(t), meta)


def task_batch() -> TaskBatch:
    generator = torch.Generator().manual_seed(2)

    def samples(per_class: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(TASKS, WAYS * per_class, 2, 8, 8, generator=generator, dtype=torch.float64)
        return x, torch.eye(WAYS, dtype=torch.float64).repeat_interleave(per_class, 0).expand(TASKS, -1, -1)

    return TaskBatch(*samples(SHOTS), *samples(QUERIES))


# --- the comparisons -----------------------------------------------------------------------------------------


def inner_loop(
    graph: Graph, convolution: str = "direct", frozen: tuple[str, ...] = (), first_order: bool = False,
    sparsify: Sparsify = "gradient",
) -> InnerLoop:  # fmt: skip
    layers = [layer for layer in graph.layers if layer.name not in frozen]
    learning = frozenset(name for layer in layers for name in layer.weight_names)
    return InnerLoop(Network(graph, convolution), STEPS, learning, RHO_FW, RHO_BW, first_order, sparsify)


def plain_loop(graph: Graph, first_order: bool = False, **options: Any) -> PlainLoop:
    return PlainLoop(graph, STEPS, RHO_FW, RHO_BW, first_order, **options)


def assert_same_gradient(
    inner: InnerLoop, plain: PlainLoop, meta: dict[str, Any], step_weights: tuple[float, ...] | None = None
) -> None:
    """Losses and meta-gradient of the trainer are those of the plain loop: relative difference below 1e-9."""
    tasks = task_batch()
    weights = None if step_weights is None else torch.tensor(step_weights, dtype=torch.float64)
    results = [meta_gradient(inner, meta, tasks, weights, batching)[:2] for batching in ("loop", "vmap")]

    leaves = [leaf.requires_grad_() for leaf in tree_leaves(meta)]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(TASKS):
        sx, sy, qx, qy = (tensor[t] for tensor in tasks.tensors())
        trajectory = plain.trajectory(meta, sx, sy, len(sx))
        step_losses = [F.cross_entropy(plain.forward(w, qx), qy.argmax(1)) for w in trajectory]
        for _, losses in results:
            assert losses[t].item() == pytest.approx(step_losses[-1].item(), rel=1e-9)
        used = step_losses[-1:] if step_weights is None else step_losses
        total = total + sum(v * loss for v, loss in zip(step_weights or (1.0,), used, strict=True)) / TASKS
    expected = torch.autograd.grad(total, leaves, allow_unused=True)
    for gradient, _ in results:
        for mine, reference in zip(tree_leaves(gradient), expected, strict=True):
            reference = torch.zeros_like(mine) if reference is None else reference
            torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)
            assert (mine - reference).norm() <= 1e-9 * reference.norm() + 1e-15  # where it is zero, roundings
        assert any(leaf.abs().max() > 1e-3 for leaf in tree_leaves(gradient))


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
@pytest.mark.parametrize("directions", [(), ("fw", "bw")], ids=["plain", "attention"])
@pytest.mark.parametrize("step_weights", [None, (0.3, 0.7)], ids=["last step", "multi-step"])
def test_meta_gradient(graph: Graph, convolution: str, directions: tuple[str, ...], step_weights: Any) -> None:
    meta = meta_parameters(graph, directions)
    assert_same_gradient(inner_loop(graph, convolution), plain_loop(graph), meta, step_weights)


@pytest.mark.parametrize("directions", [("fw",), ("bw",)])
def test_one_direction_of_attention(graph: Graph, directions: tuple[str, ...]) -> None:
    assert_same_gradient(inner_loop(graph), plain_loop(graph), meta_parameters(graph, directions))


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("directions", [(), ("fw", "bw")], ids=["plain", "attention"])
def test_step_sizes_per_channel(graph: Graph, directions: tuple[str, ...], first_order: bool) -> None:
    meta = meta_parameters(graph, directions, channel_alpha=True)
    assert_same_gradient(inner_loop(graph, first_order=first_order), plain_loop(graph, first_order), meta)


@pytest.mark.parametrize("directions", [(), ("fw", "bw")], ids=["plain", "attention"])
@pytest.mark.parametrize("step_weights", [None, (0.3, 0.7)], ids=["last step", "multi-step"])
def test_first_order(graph: Graph, directions: tuple[str, ...], step_weights: Any) -> None:
    """Loss gradients are constants; step sizes and attention still have their own gradients."""
    meta = meta_parameters(graph, directions)
    assert_same_gradient(inner_loop(graph, first_order=True), plain_loop(graph, first_order=True), meta, step_weights)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("directions", [("fw",), ("bw",), ("fw", "bw")], ids=["forward", "backward", "both"])
@pytest.mark.parametrize("sparsify", ["input", "output_gradient"])
def test_attention_that_weighs_maps(
    graph: Graph, sparsify: Sparsify, directions: tuple[str, ...], first_order: bool
) -> None:
    """Table 7."""
    inner = inner_loop(graph, first_order=first_order, sparsify=sparsify)
    plain = plain_loop(graph, first_order, sparsify=sparsify)
    assert_same_gradient(inner, plain, meta_parameters(graph, directions, channel_alpha=directions == ("fw", "bw")))


@pytest.mark.parametrize(("sparsify", "directions"), [("input", ("fw",)), ("output_gradient", ("bw",))])
def test_weighing_maps_is_something_else(graph: Graph, sparsify: Sparsify, directions: tuple[str, ...]) -> None:
    meta, tasks = meta_parameters(graph, directions), task_batch()
    on_maps, on_gradients = (
        inner_loop(graph, sparsify=choice).adapt(meta, tasks.support_x[0], tasks.support_y[0], 1)["conv1.weight"]
        for choice in (sparsify, "gradient")
    )
    assert not torch.allclose(on_maps, on_gradients, rtol=1e-3)


@pytest.mark.parametrize("directions", [(), ("fw", "bw")], ids=["plain", "attention"])
@pytest.mark.parametrize(("normalization", "pooling"), [("batch", "max"), ("group", "average"), ("batch", "average")])
def test_other_normalization_and_pooling(
    graph: Graph, normalization: Any, pooling: Any, directions: tuple[str, ...]
) -> None:
    """Table 5; the query samples are one batch, too."""
    other = varied(graph, normalization, pooling)
    plain = plain_loop(graph, batch_norm=normalization == "batch", average_pool=pooling == "average")
    assert_same_gradient(inner_loop(other), plain, meta_parameters(graph, directions))


def test_first_order_is_another_gradient(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, ()), task_batch()
    first, second = (meta_gradient(inner_loop(graph, first_order=on), meta, tasks)[0] for on in (True, False))
    assert not torch.allclose(first["weights"]["conv1.weight"], second["weights"]["conv1.weight"], rtol=1e-3)


@pytest.mark.parametrize("micro_batch", [1, 4, 6])
@pytest.mark.parametrize("sparsify", ["gradient", "input", "output_gradient"])
@pytest.mark.parametrize("normalization", ["group", "batch"])
def test_micro_batches_with_attention(graph: Graph, micro_batch: int, sparsify: Sparsify, normalization: Any) -> None:
    """Six samples: micro-batches of 1, of 4 and a smaller rest, and all at once."""
    meta, tasks = meta_parameters(graph), task_batch()
    inner = inner_loop(varied(graph, normalization, "max"), sparsify=sparsify)
    adapted = inner.adapt(meta, tasks.support_x[0], tasks.support_y[0], micro_batch)
    tree_map(lambda t: t.requires_grad_(), meta)
    plain = plain_loop(graph, sparsify=sparsify, batch_norm=normalization == "batch")
    expected = plain.trajectory(meta, tasks.support_x[0], tasks.support_y[0], micro_batch)[-1]
    for name, weight in expected.items():
        torch.testing.assert_close(adapted[name], weight.detach(), rtol=1e-9, atol=1e-12)


def test_without_attention_the_micro_batch_size_does_not_matter(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, ()), task_batch()
    one, whole = (inner_loop(graph).adapt(meta, tasks.support_x[0], tasks.support_y[0], size) for size in (1, None))
    for name in one:
        torch.testing.assert_close(one[name], whole[name], rtol=1e-12, atol=1e-12)


def test_with_attention_it_does(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph), task_batch()
    one, whole = (inner_loop(graph).adapt(meta, tasks.support_x[0], tasks.support_y[0], size) for size in (1, None))
    assert not torch.allclose(one["conv2.weight"], whole["conv2.weight"], rtol=1e-6)


def test_frozen_layers_equal_zero_step_sizes(graph: Graph) -> None:
    """Skipping a layer altogether is the same as never moving it, for weights and for the meta-gradient."""
    meta, tasks = meta_parameters(graph), task_batch()
    meta["alpha"][:2] = 0.0
    full, losses, _ = meta_gradient(inner_loop(graph), meta, tasks)
    skipped, skipped_losses, _ = meta_gradient(inner_loop(graph, frozen=("conv1", "norm1")), meta, tasks)
    torch.testing.assert_close(losses, skipped_losses, rtol=1e-12, atol=0)
    for name in full["weights"]:
        torch.testing.assert_close(full["weights"][name], skipped["weights"][name], rtol=1e-9, atol=1e-12)
    assert torch.equal(skipped["alpha"][:2], torch.zeros(2, STEPS, dtype=torch.float64))


def test_accuracies_are_those_of_the_adapted_weights(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph), task_batch()
    inner = inner_loop(graph)
    before, after, loss = accuracies(inner, meta, tasks, micro_batch=1)
    for t in range(TASKS):
        sx, sy, qx, qy = (tensor[t] for tensor in tasks.tensors())
        adapted = inner.adapt(meta, sx, sy, 1)
        for weights, accuracy in ((meta["weights"], before[t]), (adapted, after[t])):
            logits = inner.network.forward(weights, qx)
            assert accuracy.item() == pytest.approx((logits.argmax(1) == qy.argmax(1)).double().mean().item())
        assert loss[t].item() == pytest.approx(F.cross_entropy(logits, qy.argmax(1)).item(), rel=1e-9)


def test_a_model_that_never_learns_keeps_its_weights(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph), task_batch()
    frozen = tuple(layer.name for layer in graph.layers)
    before, after, _ = accuracies(inner_loop(graph, frozen=frozen), meta, tasks, micro_batch=1)
    assert torch.equal(before, after)
