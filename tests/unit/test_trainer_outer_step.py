"""One outer step: the limit of the gradient, the rates, the decay, and the weights of all steps' losses."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.trainer.config import Config, config_from_dict  # noqa: E402
from pmeta.trainer.lasso import activation_shares  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.objective import TaskBatch, meta_gradient, multi_step_weights  # noqa: E402

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


def config(method: dict[str, Any] | None = None, **training: Any) -> Config:
    return config_from_dict(
        {
            "task": {"ways": 3, "shots": 2, "queries": 2},
            "network": {"width": 4, "groups": 2, "blocks": 2},
            "method": {"name": "p-meta-3.2+3.3", "steps": 2, "alpha": 0.2, "penalty": 0.0} | (method or {}),
            "training": {"iterations": 8, "learning_rate": 0.01, "clip_norm": 0.0} | training,
        },
        "test",
    )


def random_tasks() -> TaskBatch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(3).repeat(2, 1).expand(2, -1, -1)
    x, query_x = (torch.randn(2, 6, *SHAPE, generator=generator) for _ in range(2))
    return TaskBatch(x, labels, query_x, labels)


def stepped(settings: Config, iteration: int = 0) -> MetaLearner:
    """A new learner after this one step."""
    learner = MetaLearner(settings, SHAPE, CPU)
    learner.step(random_tasks(), iteration)
    return learner


def gradients(learner: MetaLearner, part: str) -> Tensor:
    return torch.cat([leaf.grad.flatten() for leaf in tree_leaves(learner.meta[part])])


def moves(settings: Config, iteration: int = 0) -> dict[str, Tensor]:
    """How far a step moved every entry of each part of the meta-parameters."""
    before, after = MetaLearner(settings, SHAPE, CPU).meta, stepped(settings, iteration).meta
    return {part: torch.cat([leaf.flatten() for leaf in tree_leaves(tree_map(torch.sub, after[part], before[part]))])
            for part in after if tree_leaves(after[part])}  # fmt: skip


# --- the limit of the gradient's norm ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "optimized"),
    [
        ("p-meta-3.2+3.3", ("weights", "alpha", "attention")),
        ("p-meta-3.2+alpha-ch", ("weights", "alpha", "channel_alpha")),
        ("maml", ("weights",)),
        ("anil", ("weights",)),
        ("boil", ("weights",)),
    ],
)
def test_the_gradient_of_what_is_optimized_is_limited(method: str, optimized: tuple[str, ...]) -> None:
    """Its direction stays; step sizes that are fixed do not count."""
    free, clipped = (stepped(config({"name": method}, clip_norm=limit)) for limit in (0.0, 0.125))
    whole, limited = (torch.cat([gradients(learner, part) for part in optimized]) for learner in (free, clipped))
    assert gradients(free, "alpha").norm() > 0.01 * whole.norm(), "step sizes would hardly count"
    assert whole.norm() > 0.25
    torch.testing.assert_close(limited, whole * (0.125 / whole.norm()))


def test_smaller_gradients_stay() -> None:
    free, limited = (stepped(config(clip_norm=limit)) for limit in (0.0, 1e3))
    for one, other in zip(tree_leaves(free.meta), tree_leaves(limited.meta), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_the_price_is_not_limited() -> None:
    free, priced = (stepped(config({"penalty": price}, clip_norm=0.125)) for price in (0.0, 3.0))
    difference = priced.meta["alpha"].grad - free.meta["alpha"].grad
    torch.testing.assert_close(difference, 3.0 * activation_shares(free.graph)[:, None].expand_as(difference))


# --- rates and decay -----------------------------------------------------------------------------------------

# Adam's first step is the learning rate, wherever the gradient is not tiny.


@pytest.mark.parametrize("iteration", [0, 2, 4, 8])
@pytest.mark.parametrize("alpha_rate", [None, 0.03])
def test_the_rates_fall_along_a_cosine(iteration: int, alpha_rate: float | None) -> None:
    """From the rate to a fifth of it; the step sizes' alike."""
    method = {"name": "p-meta-3.2+alpha-ch"}
    moved = moves(config(method, final_learning_rate=0.002, alpha_learning_rate=alpha_rate), iteration)
    share = 0.2 + 0.8 * (1 + cos(pi * iteration / 8)) / 2
    for part, rate in {"weights": 0.01, "alpha": alpha_rate or 0.01, "channel_alpha": alpha_rate or 0.01}.items():
        assert moved[part].abs().max().item() == pytest.approx(rate * share, rel=1e-3), part


def test_attention_moves_at_the_weights_rate() -> None:
    moved = moves(config(alpha_learning_rate=0.03))
    assert moved["attention"].abs().max().item() == pytest.approx(0.01, rel=1e-3)


def test_decay_is_of_weights_and_attention_alone() -> None:
    plain, decayed = (stepped(config(weight_decay=decay)).meta for decay in (0.0, 0.5))
    before = MetaLearner(config(), SHAPE, CPU).meta
    for part in ("weights", "attention"):
        for old, one, other in zip(*(tree_leaves(meta[part]) for meta in (before, plain, decayed)), strict=True):
            torch.testing.assert_close(other - one, -0.01 * 0.5 * old, rtol=1e-3, atol=1e-6)
    assert torch.equal(plain["alpha"], decayed["alpha"])
    with_channels = {"name": "p-meta-3.2+alpha-ch"}
    plain, decayed = (stepped(config(with_channels, weight_decay=decay)).meta for decay in (0.0, 0.5))
    for one, other in zip(tree_leaves(plain["channel_alpha"]), tree_leaves(decayed["channel_alpha"]), strict=True):
        assert torch.equal(one, other)


# --- the losses after all steps ------------------------------------------------------------------------------


def test_weights_of_the_steps_move_to_the_last() -> None:
    for progress, expected in (
        (0.0, [0.25, 0.25, 0.25, 0.25]),
        (0.5, [0.125, 0.125, 0.125, 0.625]),
        (1.0, [0.0, 0.0, 0.0, 1.0]),
        (2.0, [0.0, 0.0, 0.0, 1.0]),
    ):
        assert multi_step_weights(4, progress) == pytest.approx(expected)
    assert multi_step_weights(1, 0.3) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("iteration", "weights"), [(0, (0.5, 0.5)), (2, (0.25, 0.75)), (3, (0.125, 0.875)), (4, (0, 1)), (6, (0, 1))]
)
def test_losses_after_all_steps_count_at_first(iteration: int, weights: tuple[float, float]) -> None:
    learner = MetaLearner(config(multi_step_iterations=4), SHAPE, CPU)
    expected, losses, _ = meta_gradient(learner.inner, learner.meta, random_tasks(), torch.tensor(weights))
    report = learner.step(random_tasks(), iteration)
    assert report.loss == pytest.approx(losses.mean().item()), "what is reported is the last step's"
    for leaf, gradient in zip(tree_leaves(learner.meta), tree_leaves(expected), strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-4, atol=1e-7)


def test_without_them_the_last_loss_counts_alone() -> None:
    learner = MetaLearner(config(), SHAPE, CPU)
    expected, _, _ = meta_gradient(learner.inner, learner.meta, random_tasks())
    learner.step(random_tasks(), 0)
    for leaf, gradient in zip(tree_leaves(learner.meta), tree_leaves(expected), strict=True):
        torch.testing.assert_close(leaf.grad, gradient)
