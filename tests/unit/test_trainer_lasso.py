"""What a step size costs: shares of the layers' inputs, or of what the planner adds."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model  # noqa: E402
from pmeta.codegen.graph import Graph, frozen_float32  # noqa: E402
from pmeta.codegen.networks import four_conv, mlp, resnet12  # noqa: E402
from pmeta.codegen.plan.plan import make_plan, prediction_arena_bytes  # noqa: E402
from pmeta.trainer.config import config_from_dict  # noqa: E402
from pmeta.trainer.lasso import activation_shares, ram_shares  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from tests.models import with_batch  # noqa: E402

pytestmark = pytest.mark.unit
STEPS = 2


def model(graph: Graph, learning: str = "") -> Model:
    """`learning`: a 1 for every layer that learns, a 0 for every other; all where empty."""
    layers = graph.layers
    alpha = np.array([int(c) for c in learning or "1" * len(layers)], np.float32)[:, None].repeat(STEPS, 1)
    return Model(graph, Adaptation(
        "test", ways=graph.output_shape[0], shots=1, alpha=frozen_float32(alpha),
        updates=tuple(("weight", "bias")[: len(layer.weight_names)] for layer in layers),
        rho_fw=0, rho_bw=0, encoding=InputEncoding("float32"),
    ))  # fmt: skip


def test_activations_are_the_inputs_of_the_layers() -> None:
    graph = four_conv((2, 8, 8), ways=3, width=4, groups=2, blocks=2)
    sizes = torch.tensor([2 * 64, 4 * 64, 4 * 16, 4 * 16, 4 * 4], dtype=torch.float32)
    torch.testing.assert_close(activation_shares(graph), sizes / sizes.sum())


def test_a_layer_costs_what_it_adds_alone_and_what_it_adds_last() -> None:
    """Written out for the second of three layers."""
    graph = mlp(20, (12, 8), 3)

    def arena(learning: str) -> int:
        return make_plan(model(graph, learning)).arena_bytes

    nothing = prediction_arena_bytes(model(graph))
    cost = {
        "100": arena("100") - nothing + arena("111") - arena("011"),
        "010": arena("010") - nothing + arena("111") - arena("101"),
        "001": arena("001") - nothing + arena("111") - arena("110"),
    }
    assert min(cost.values()) > 0
    expected = torch.tensor([value / sum(cost.values()) for value in cost.values()])
    torch.testing.assert_close(ram_shares(model(graph)), expected)


def test_weights_count() -> None:
    """fc1 has many weights and a small input: next to nothing by activations, most of the RAM."""
    graph = mlp(8, (100, 30), 5)
    assert activation_shares(graph)[0] < 0.1
    # 3000 weights of fc2, 800 of fc1, 150 of fc3; one accumulator and one weight each.
    assert ram_shares(model(graph)).argmax() == 1
    assert ram_shares(model(graph))[1] > 0.6


@pytest.mark.parametrize("graph", [four_conv((1, 16, 16), 3, 8, 2, blocks=2), resnet12((1, 16, 16), 3, (4, 8), 2)])
def test_shares_of_ram_sum_to_one(graph: Graph) -> None:
    shares = ram_shares(model(graph))
    assert shares.shape == (len(graph.layers),) and (shares >= 0).all()
    assert shares.sum().item() == pytest.approx(1)


def test_what_never_learns_costs_nothing() -> None:
    graph = four_conv((1, 16, 16), 3, 8, 2, blocks=2)
    shares = ram_shares(model(graph, "00111"))
    assert (shares[:2] == 0).all() and shares[2] > 0


def test_sparse_attention_makes_a_layer_cheaper() -> None:
    """Of a hidden layer's input, only the kept channels are stored."""
    settings = {"task": {"ways": 3}, "network": {"width": 8, "groups": 2, "blocks": 2}, "device": {"sample_batch": 1}}
    prices = {}
    for rho in (0, 900):
        method = {"name": "p-meta-3.2+3.3", "steps": STEPS, "rho_fw": rho, "lasso_cost": "ram"}
        learner = MetaLearner(config_from_dict(settings | {"method": method}, "test"), (1, 16, 16), torch.device("cpu"))
        prices[rho] = learner._price[:, 0] / learner._price[-1, 0]
    assert prices[900][2] < prices[0][2]  # conv2


def test_the_price_is_by_ram() -> None:
    settings = {"task": {"ways": 3}, "network": {"width": 8, "groups": 2, "blocks": 2}}
    method = {"name": "p-meta-3.2", "steps": STEPS, "lasso_cost": "ram", "penalty": 5, "frozen_layers": ["conv1"]}
    learner = MetaLearner(config_from_dict(settings | {"method": method}, "test"), (1, 16, 16), torch.device("cpu"))
    expected = ram_shares(model(learner.graph, "01111"))
    torch.testing.assert_close(learner._price, 5 * expected[:, None].repeat(1, STEPS))


def test_prediction_needs_less_than_any_adaptation() -> None:
    graph = four_conv((1, 16, 16), 3, 8, 2, blocks=2)
    nothing = prediction_arena_bytes(model(graph))
    assert 0 < nothing < make_plan(model(graph, "00001")).arena_bytes
    assert prediction_arena_bytes(with_batch(model(graph), 3)) == nothing
