"""One outer step: the limit of the gradient."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from pmeta.trainer.config import Config, config_from_dict  # noqa: E402
from pmeta.trainer.lasso import activation_shares  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.objective import TaskBatch  # noqa: E402

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
