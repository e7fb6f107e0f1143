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
from pmeta.codegen.operators import Conv, Gemm, GroupNorm  # noqa: E402
from pmeta.trainer.attention import initial_module  # noqa: E402
from pmeta.trainer.inner_loop import InnerLoop  # noqa: E402
from pmeta.trainer.networks import Network, weight_tensors  # noqa: E402
from pmeta.trainer.objective import TaskBatch, accuracies, meta_gradient  # noqa: E402

pytestmark = pytest.mark.unit

WAYS, SHOTS, QUERIES, STEPS, TASKS = 3, 2, 2, 2, 2
RHO_FW, RHO_BW = 300, 250


@pytest.fixture
def graph() -> Graph:
    return four_conv((2, 8, 8), WAYS, width=4, groups=2, rng=np.random.default_rng(0), blocks=2)


def meta_parameters(graph: Graph, attention: bool) -> dict[str, Any]:
    """Random meta-parameters in float64; the step sizes of some layers and steps are zero."""
    rng = np.random.default_rng(1)
    alpha = torch.from_numpy(rng.uniform(0.1, 0.5, (len(graph.layers), STEPS)))
    alpha[1] = 0.0
    alpha[2, 0] = 0.0
    modules: dict[str, Any] = {}
    for layer in graph.layers[:-1] if attention else ():
        fw, bw = layer.attention_channels(graph.shapes[layer.input])
        modules[layer.name] = {"fw": initial_module(fw, rng), "bw": initial_module(bw, rng)}
    meta = {"weights": weight_tensors(graph), "alpha": alpha, "attention": modules}
    # Large random values: softmax outputs far from uniform and from each other, scales other than one.
    return tree_map(lambda t: t.double() + torch.from_numpy(rng.normal(0, 0.3, t.shape)) * (t.dim() < 4)
                    * (t is not alpha), meta)  # fmt: skip


def task_batch() -> TaskBatch:
    generator = torch.Generator().manual_seed(2)

    def samples(per_class: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(TASKS, WAYS * per_class, 2, 8, 8, generator=generator, dtype=torch.float64)
        return x, torch.eye(WAYS, dtype=torch.float64).repeat_interleave(per_class, 0).expand(TASKS, -1, -1)

    return TaskBatch(*samples(SHOTS), *samples(QUERIES))


# --- the reference -------------------------------------------------------------------------------------------


def reference_forward(graph: Graph, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict, dict]:
    """One batch; also every layer's attention input and its output y_l, which autograd can differentiate by."""
    inputs, outputs = {}, {}
    for i in (1, 2):
        inputs[f"conv{i}"] = x
        x = outputs[f"conv{i}"] = F.conv2d(x, weights[f"conv{i}.weight"], padding=1)
        inputs[f"norm{i}"] = F.group_norm(x, 2, eps=graph.nodes[1].epsilon)
        x = F.group_norm(x, 2, weights[f"norm{i}.weight"], weights[f"norm{i}.bias"], eps=graph.nodes[1].epsilon)
        outputs[f"norm{i}"] = x
        x = F.max_pool2d(F.relu(x), 2)
    inputs["fc"] = x.flatten(1)
    outputs["fc"] = F.linear(inputs["fc"], weights["fc.weight"], weights["fc.bias"])
    return outputs["fc"], inputs, outputs


def reference_gamma(module: dict[str, Tensor], x: Tensor, rho: int) -> Tensor:
    """h of one micro-batch, with a straight-through Algorithm 1 written as a loop."""
    pooled = x.mean((2, 3)) if x.dim() == 4 else x
    scores = F.linear(F.relu(F.linear(pooled, module["w1"], module["b1"])), module["w2"], module["b2"])
    pi = torch.softmax(scores.mean(0), 0)
    channels = len(pi)
    values = pi.detach().clone()
    if rho and channels > 1:
        total, cut = 0.0, []
        for index in sorted(range(channels), key=lambda i: (values[i].item(), i)):
            if total >= rho / 1000 or len(cut) == channels - 1:
                break
            cut.append(index)
            total += values[index].item()
        values[cut] = 0.0
    return (values / values.sum() * channels - channels * pi).detach() + channels * pi


def reference_adapt(
    graph: Graph, meta: dict[str, Any], x: Tensor, y: Tensor, micro_batch: int
) -> list[dict[str, Tensor]]:
    weights, trajectory = dict(meta["weights"]), []
    for k in range(STEPS):
        total = {name: torch.zeros_like(w) for name, w in weights.items()}
        for start in range(0, len(x), micro_batch):
            xs, ys = x[start : start + micro_batch], y[start : start + micro_batch]
            logits, inputs, outputs = reference_forward(graph, weights, xs)
            loss = F.cross_entropy(logits, ys.argmax(1), reduction="sum")
            names = list(weights)
            dense = dict(zip(names, torch.autograd.grad(loss, [weights[n] for n in names], create_graph=True),
                             strict=True))  # fmt: skip
            by_output = dict(zip(outputs, torch.autograd.grad(loss, list(outputs.values()), create_graph=True),
                                 strict=True))  # fmt: skip
            for layer in graph.layers:
                modules = meta["attention"].get(layer.name)
                if modules:
                    fw = reference_gamma(modules["fw"], inputs[layer.name], RHO_FW)
                    bw = reference_gamma(modules["bw"], by_output[layer.name], RHO_BW)
                    dense |= reweighted(layer, dense, fw, bw)
                for name in layer.weight_names:
                    total[name] = total[name] + dense[name]
        for number, layer in enumerate(graph.layers):
            for name in layer.weight_names:
                weights[name] = weights[name] - meta["alpha"][number, k] * total[name] / len(x)
        trajectory.append(dict(weights))
    return trajectory


def reweighted(layer: Any, dense: dict[str, Tensor], fw: Tensor, bw: Tensor) -> dict[str, Tensor]:
    """Eqs. 12 and 13; bias and shift take γ^bw alone, the GroupNorm's scale both per channel."""
    match layer:
        case Conv():
            return {layer.weight: dense[layer.weight] * bw[:, None, None, None] * fw[None, :, None, None]}
        case GroupNorm():
            return {layer.scale: dense[layer.scale] * fw * bw, layer.shift: dense[layer.shift] * bw}
        case Gemm():
            return {layer.weight: dense[layer.weight] * bw[:, None] * fw, layer.bias: dense[layer.bias] * bw}
    raise AssertionError(layer)


# --- the comparisons -----------------------------------------------------------------------------------------


def inner_loop(graph: Graph, convolution: str = "direct", frozen: tuple[str, ...] = ()) -> InnerLoop:
    layers = [layer for layer in graph.layers if layer.name not in frozen]
    learning = frozenset(name for layer in layers for name in layer.weight_names)
    return InnerLoop(Network(graph, convolution), STEPS, learning, RHO_FW, RHO_BW)


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("step_weights", [None, (0.3, 0.7)])
def test_meta_gradient(graph: Graph, convolution: str, attention: bool, step_weights: Any) -> None:
    meta, tasks = meta_parameters(graph, attention), task_batch()
    weights = None if step_weights is None else torch.tensor(step_weights, dtype=torch.float64)
    gradient, losses, _ = meta_gradient(inner_loop(graph, convolution), meta, tasks, weights)

    leaves = [leaf.requires_grad_() for leaf in tree_leaves(meta)]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(TASKS):
        sx, sy, qx, qy = (tensor[t] for tensor in tasks.tensors())
        trajectory = reference_adapt(graph, meta, sx, sy, len(sx))
        step_losses = [F.cross_entropy(reference_forward(graph, w, qx)[0], qy.argmax(1)) for w in trajectory]
        assert losses[t].item() == pytest.approx(step_losses[-1].item(), rel=1e-9)
        used = step_losses[-1:] if step_weights is None else step_losses
        total = total + sum(v * loss for v, loss in zip(step_weights or (1.0,), used, strict=True)) / TASKS
    expected = torch.autograd.grad(total, leaves, allow_unused=True)
    for mine, reference in zip(tree_leaves(gradient), expected, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if reference is None else reference,
                                   rtol=1e-9, atol=1e-11)  # fmt: skip
    assert any(leaf.abs().max() > 1e-3 for leaf in tree_leaves(gradient))


@pytest.mark.parametrize("micro_batch", [1, 4, 6])
def test_micro_batches_with_attention(graph: Graph, micro_batch: int) -> None:
    """Six samples: micro-batches of 1, of 4 and a smaller rest, and all at once."""
    meta, tasks = meta_parameters(graph, attention=True), task_batch()
    adapted = inner_loop(graph).adapt(meta, tasks.support_x[0], tasks.support_y[0], micro_batch)
    tree_map(lambda t: t.requires_grad_(), meta)
    expected = reference_adapt(graph, meta, tasks.support_x[0], tasks.support_y[0], micro_batch)[-1]
    for name, weight in expected.items():
        torch.testing.assert_close(adapted[name], weight.detach(), rtol=1e-9, atol=1e-12)


def test_without_attention_the_micro_batch_size_does_not_matter(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, attention=False), task_batch()
    one, whole = (inner_loop(graph).adapt(meta, tasks.support_x[0], tasks.support_y[0], size) for size in (1, None))
    for name in one:
        torch.testing.assert_close(one[name], whole[name], rtol=1e-12, atol=1e-12)


def test_with_attention_it_does(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, attention=True), task_batch()
    one, whole = (inner_loop(graph).adapt(meta, tasks.support_x[0], tasks.support_y[0], size) for size in (1, None))
    assert not torch.allclose(one["conv2.weight"], whole["conv2.weight"], rtol=1e-6)


def test_frozen_layers_equal_zero_step_sizes(graph: Graph) -> None:
    """Skipping a layer altogether is the same as never moving it, for weights and for the meta-gradient."""
    meta, tasks = meta_parameters(graph, attention=True), task_batch()
    meta["alpha"][:2] = 0.0
    full, losses, _ = meta_gradient(inner_loop(graph), meta, tasks)
    skipped, skipped_losses, _ = meta_gradient(inner_loop(graph, frozen=("conv1", "norm1")), meta, tasks)
    torch.testing.assert_close(losses, skipped_losses, rtol=1e-12, atol=0)
    for name in full["weights"]:
        torch.testing.assert_close(full["weights"][name], skipped["weights"][name], rtol=1e-9, atol=1e-12)
    assert torch.equal(skipped["alpha"][:2], torch.zeros(2, STEPS, dtype=torch.float64))


def test_accuracies_are_those_of_the_adapted_weights(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, attention=True), task_batch()
    inner = inner_loop(graph)
    before, after, loss = accuracies(inner, meta, tasks, micro_batch=1)
    for t in range(TASKS):
        sx, sy, qx, qy = (tensor[t] for tensor in tasks.tensors())
        adapted = inner.adapt(meta, sx, sy, 1)
        for weights, accuracy in ((meta["weights"], before[t]), (adapted, after[t])):
            logits = inner.network.forward(weights, qx)[0]
            assert accuracy.item() == pytest.approx((logits.argmax(1) == qy.argmax(1)).double().mean().item())
        assert loss[t].item() == pytest.approx(F.cross_entropy(logits, qy.argmax(1)).item(), rel=1e-9)


def test_a_model_that_never_learns_keeps_its_weights(graph: Graph) -> None:
    meta, tasks = meta_parameters(graph, attention=True), task_batch()
    frozen = tuple(layer.name for layer in graph.layers)
    before, after, _ = accuracies(inner_loop(graph, frozen=frozen), meta, tasks, micro_batch=1)
    assert torch.equal(before, after)
