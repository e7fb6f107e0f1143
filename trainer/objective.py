"""The outer loop's objective: the query loss after adaptation, its gradient by task, and the price of step sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pmeta.trainer.inner_loop import InnerLoop, MetaParameters, cross_entropy


@dataclass(frozen=True)
class TaskBatch:
    """T tasks of N support and Q query samples; inputs decoded to float32, labels one-hot."""

    support_x: Tensor  # (T, N, C, H, W)
    support_y: Tensor  # (T, N, ways)
    query_x: Tensor  # (T, Q, C, H, W)
    query_y: Tensor  # (T, Q, ways)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.support_x, self.support_y, self.query_x, self.query_y


def meta_gradient(
    inner: InnerLoop, meta: MetaParameters, tasks: TaskBatch, step_weights: Tensor | None = None
) -> tuple[MetaParameters, Tensor, Tensor]:
    """Second-order gradient of the mean query loss over tasks (Eqs. 7, 8 and 15).

    step_weights: None to use the loss after step K alone, or (K,) weights of the losses after every step, the
    multi-step loss of MAML++. Returns the gradient (shaped as `meta`), and loss and accuracy after step K, both (T,).

    vmap(grad(task_loss)), not grad of a vmapped mean: each task differentiates its own loss, so no operator needs a
    rule for the gradient of its batched form.
    """

    def task_loss(
        meta: MetaParameters, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        total = query_x.new_zeros(())
        for k, weights in enumerate(inner.trajectory(meta, support_x, support_y)):
            last = k == inner.steps - 1
            if last or step_weights is not None:
                logits, _ = inner.network.forward(weights, query_x)
                loss = cross_entropy(logits, query_y).mean()
                total = total + (loss if step_weights is None else step_weights[k] * loss)
        return total, (loss.detach(), _accuracy(logits, query_y))

    per_task = torch.func.vmap(torch.func.grad(task_loss, has_aux=True), in_dims=(None, 0, 0, 0, 0))
    gradients, (losses, accuracies) = per_task(meta, *tasks.tensors())
    mean = tree_map(lambda g: g.mean(0), gradients)
    return mean, losses, accuracies


def _accuracy(logits: Tensor, one_hot: Tensor) -> Tensor:
    return (logits.argmax(-1) == one_hot.argmax(-1)).float().mean()


def accuracies(
    inner: InnerLoop, meta: MetaParameters, tasks: TaskBatch, micro_batch: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(accuracy before, accuracy after, query loss after) adaptation at micro-batch size `micro_batch`, each (T,)."""

    def one_task(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        before, _ = inner.network.forward(meta["weights"], query_x)
        adapted = inner.adapt(meta, support_x, support_y, micro_batch)
        after, _ = inner.network.forward(adapted, query_x)
        return _accuracy(before, query_y), _accuracy(after, query_y), cross_entropy(after, query_y).mean()

    with torch.no_grad():
        before, after, loss = torch.func.vmap(one_task)(*tasks.tensors())
    return before, after, loss


def multi_step_weights(step_count: int, progress: float) -> list[float]:
    """Weights of the query losses after steps 1..K; `progress` runs from 0 (equal) to 1 (the last step alone).

    MAML++ (Antoniou et al., 2019, Sec. 4) anneals towards the last step, as here, linearly.
    """
    other = (1.0 - min(max(progress, 0.0), 1.0)) / step_count
    return [other] * (step_count - 1) + [1.0 - other * (step_count - 1)]
