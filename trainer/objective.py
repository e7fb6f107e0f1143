"""The outer loop's objective: the query loss after adaptation, its gradient by task, and the price of step sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pmeta.trainer.inner_loop import InnerLoop, MetaParameters, cross_entropy
from pmeta.trainer.operators import Tensors


@dataclass(frozen=True)
class TaskBatch:
    """T tasks of N support and Q query samples; inputs decoded to float32, labels one-hot."""

    support_x: Tensor  # (T, N, C, H, W)
    support_y: Tensor  # (T, N, ways)
    query_x: Tensor  # (T, Q, C, H, W)
    query_y: Tensor  # (T, Q, ways)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.support_x, self.support_y, self.query_x, self.query_y


Loss = Callable[..., tuple[Tensor, Tensor]]  # see `task_loss`


def batching_for(device: torch.device, choice: str = "auto") -> str:
    """How tasks are computed: `choice`, or for auto what suits the device.

    vmap: all at once, in few large operations, as a GPU wants it. loop: one after another, which on a CPU keeps the
    data of a task in the cache, and calls ordinary convolutions instead of grouped ones.
    """
    if choice != "auto":
        return choice
    return "vmap" if device.type == "cuda" else "loop"


def meta_gradient(
    inner: InnerLoop, meta: MetaParameters, tasks: TaskBatch, step_weights: Tensor | None = None,
    batching: str = "auto", loss: Loss | None = None,
) -> tuple[MetaParameters, Tensor, Tensor]:  # fmt: skip
    """Second-order gradient of the mean query loss over tasks (Eqs. 7, 8 and 15).

    step_weights: None to use the loss after step K alone, or (K,) weights of the losses after every step, the
    multi-step loss of MAML++. loss: `task_loss`, compiled. Returns the gradient (shaped as `meta`), and loss and
    accuracy after step K, both (T,).

    Layers below the lowest that learns are the same for all tasks: all samples pass through them, forward and
    backward, as one batch.
    """
    by_task = _vmapped if batching_for(tasks.query_x.device, batching) == "vmap" else _looped
    lowest, (count, shots) = inner.lowest, tasks.support_y.shape[:2]
    weights = {name: weight.detach().requires_grad_() for name, weight in meta["weights"].items()}
    x = torch.cat([tasks.support_x, tasks.query_x], 1).flatten(0, 1)
    with torch.enable_grad():
        shared = inner.network.below(weights, x, lowest)
    features = {name: value.detach().unflatten(0, (count, -1)) for name, value in shared.items()}
    computed = [name for name, value in shared.items() if value.requires_grad]  # the others are samples
    gradient, below, losses, accuracies = by_task(
        partial(loss or task_loss, inner, shots, step_weights), meta, {name: features.pop(name) for name in computed},
        (features, tasks.support_y, tasks.query_y),
    )  # fmt: skip
    if computed:
        more = torch.autograd.grad(
            [shared[name] for name in computed], [*weights.values()], [below[name].flatten(0, 1) for name in computed],
            materialize_grads=True, allow_unused=True,
        )  # fmt: skip
        summed = {name: gradient["weights"][name] + part for name, part in zip(weights, more, strict=True)}
        gradient = gradient | {"weights": summed}
    return tree_map(lambda g: g / count, gradient), losses, accuracies


def task_loss(
    inner: InnerLoop, shots: int, step_weights: Tensor | None,
    meta: MetaParameters, computed: Tensors, samples: Tensors, support_y: Tensor, query_y: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(loss to differentiate, loss and accuracy after step K (2,)) of one task.

    computed, samples: what the lowest layer that learns, and those after it, read of what comes before, for the
    task's samples, `shots` of support first.
    """
    support, query = ({name: value[part] for name, value in (computed | samples).items()}
                      for part in (slice(shots), slice(shots, None)))  # fmt: skip
    total = query_y.new_zeros(())
    for k, weights in enumerate(inner.trajectory(meta, support, support_y)):
        last = k == inner.steps - 1
        if last or step_weights is not None:
            logits = inner.network.forward(weights, query, inner.lowest)
            loss = cross_entropy(logits, query_y).mean()
            total = total + (loss if step_weights is None else step_weights[k] * loss)
    # Stacked: a compiler that finds two outputs to be the same number would make neither differentiable.
    return total, torch.stack([loss.detach(), _accuracy(logits, query_y)])


# Of all tasks: (sum of gradients by `meta`, gradients by `computed`, losses (T,), accuracies (T,)).
_ByTask = tuple[MetaParameters, Tensors, Tensor, Tensor]


def _vmapped(loss: Loss, meta: MetaParameters, computed: Tensors, fixed: tuple[Any, ...]) -> _ByTask:
    """vmap(grad(loss)), not grad of a vmapped mean: no operator needs a rule for the gradient of its batched form."""
    per_task = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1), has_aux=True), in_dims=(None, 0, 0, 0, 0))
    (gradients, below), results = per_task(meta, computed, *fixed)
    losses, accuracies = results.unbind(1)
    return tree_map(lambda g: g.sum(0), gradients), below, losses, accuracies


def _looped(loss: Loss, meta: MetaParameters, computed: Tensors, fixed: tuple[Any, ...]) -> _ByTask:
    """One task after another; only one task's graph is alive at a time."""
    leaves, structure = tree_flatten(meta)
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    total = [torch.zeros_like(leaf) for leaf in leaves]
    below = {name: torch.empty_like(value) for name, value in computed.items()}
    results = []
    for t in range(len(fixed[-1])):
        mine = {name: value[t].detach().requires_grad_() for name, value in computed.items()}
        with torch.enable_grad():
            value, result = loss(tree_unflatten(leaves, structure), mine, *tree_map(itemgetter(t), fixed))
        wanted = [*leaves, *mine.values()]
        gradients = torch.autograd.grad(value, wanted, materialize_grads=True, allow_unused=True)
        for sum_, gradient in zip(total, gradients[: len(leaves)], strict=True):
            sum_ += gradient
        for name, gradient in zip(mine, gradients[len(leaves) :], strict=True):
            below[name][t] = gradient
        results.append(result)
    losses, accuracies = torch.stack(results).unbind(1)
    return tree_unflatten(total, structure), below, losses, accuracies


def _accuracy(logits: Tensor, one_hot: Tensor) -> Tensor:
    """(..., Q, ways) → (...)."""
    return (logits.argmax(-1) == one_hot.argmax(-1)).to(one_hot.dtype).mean(-1)


def accuracies(
    inner: InnerLoop, meta: MetaParameters, tasks: TaskBatch, micro_batch: int | None, batching: str = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """(accuracy before, accuracy after, query loss after) adaptation at micro-batch size `micro_batch`, each (T,)."""
    before, after = query_logits(inner, meta, tasks, micro_batch, batching)
    loss = cross_entropy(after.flatten(0, 1), tasks.query_y.flatten(0, 1)).unflatten(0, after.shape[:2])
    return _accuracy(before, tasks.query_y), _accuracy(after, tasks.query_y), loss.mean(1)


def query_logits(
    inner: InnerLoop, meta: MetaParameters, tasks: TaskBatch, micro_batch: int | None, batching: str = "auto"
) -> tuple[Tensor, Tensor]:
    """(before, after) adaptation at micro-batch size `micro_batch`, both (T, Q, ways)."""
    network = inner.network.in_micro_batches(micro_batch)

    def one_task(support_x: Tensor, support_y: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        before = network.forward(meta["weights"], query_x)
        adapted = inner.adapt(meta, support_x, support_y, micro_batch)
        return before, network.forward(adapted, query_x)

    arrays = (tasks.support_x, tasks.support_y, tasks.query_x)
    with torch.no_grad():
        if batching_for(tasks.query_x.device, batching) == "vmap":
            before, after = torch.func.vmap(one_task)(*arrays)
        else:
            before, after = map(torch.stack, zip(*map(one_task, *arrays), strict=True))
    return before, after


def multi_step_weights(step_count: int, progress: float) -> list[float]:
    """Weights of the query losses after steps 1..K; `progress` runs from 0 (equal) to 1 (the last step alone).

    MAML++ (Antoniou et al., 2019, Sec. 4) anneals towards the last step, as here, linearly.
    """
    other = (1.0 - min(max(progress, 0.0), 1.0)) / step_count
    return [other] * (step_count - 1) + [1.0 - other * (step_count - 1)]
