"""The plan computes, stores and reserves nothing that a step does not need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.operators.weight_gradient import kept_channels_bound
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.program import Program
from pmeta.codegen.plan.strategy import STRATEGIES, Strategy
from tests.models import random_4conv

pytestmark = pytest.mark.unit

WHOLE_MAPS = Strategy(slice_channels=None)
LAYERS = ["conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4", "norm4", "fc"]


def plan_for(
    *learning: set[str],
    attention: bool = True,
    rho: tuple[int, int] = (300, 0),
    strategies: Sequence[Strategy] = STRATEGIES,
) -> Plan:
    """The plan of a 4Conv in which step k updates the layers of learning[k - 1]."""
    alpha = np.array([[0.1 if layer in step else 0 for step in learning] for layer in LAYERS], np.float32)
    model = random_4conv(0, width=8, steps=len(learning), attention=attention, alpha=alpha, rho=rho)
    renamed = [layer.name for layer in model.graph.layers]
    assert renamed[:-1] == LAYERS[:-1]
    return make_plan(model, strategies)


def functions(program: Program, phase: str) -> list[str]:
    return [f"{call.layer}:{call.function}" for call in program.calls if call.phase == phase]


def test_only_the_last_layer() -> None:
    """ANIL: no mask, no store, no gradient of an activation but the logits'."""
    plan = plan_for({"fc"})
    (program,) = plan.adapt
    assert functions(program, "backward") == ["fc1:pmeta_gemm_weight_gradient", "fc1:pmeta_bias_gradient"]
    assert [b.name for b in program.buffers if b.role.value in ("mask", "gradient")] == ["logits_g"]
    assert not [call for call in program.calls if "attention" in call.function]


def test_the_sample_gets_no_gradient() -> None:
    plan = plan_for(set(LAYERS))
    (program,) = plan.adapt
    names = functions(program, "backward")
    assert "conv2:pmeta_conv_input_gradient" in names
    assert "conv1:pmeta_conv_input_gradient" not in names


def test_backward_stops_at_the_lowest_layer_that_learns() -> None:
    plan = plan_for({"conv3", "fc"})
    names = functions(plan.adapt[0], "backward")
    assert names[-1] == "conv3:pmeta_conv_weight_gradient"
    assert not [name for name in names if name.split(":")[0] in ("conv2", "norm2", "pool2", "relu2")]
    assert "conv4:pmeta_conv_weight_gradient" not in names
    assert "conv4:pmeta_conv_input_gradient" in names


def test_dense_normalized_input_only_where_a_gradient_passes() -> None:
    """norm4 above norm3 keeps its whole x̂; norm3, the lowest that learns, only the kept rows."""
    plan = plan_for({"norm3", "fc"}, strategies=[WHOLE_MAPS])
    shapes = {buffer.name: buffer.shape for buffer in plan.adapt[0].buffers}
    assert "norm4_z" in shapes
    assert "norm3_z" not in shapes
    assert shapes["norm3_stored"] == (kept_channels_bound(8, 300), 7, 7)


def test_steps_with_the_same_layers_share_a_program() -> None:
    plan = plan_for({"fc"}, {"conv4", "fc"}, {"fc"}, {"conv4", "fc"})
    assert plan.program_of_step == (0, 1, 0, 1)
    assert plan.steps_of(plan.adapt[1]) == (2, 4)
    assert plan.steps_of(plan.predict) == ()


def test_weights_wait_in_flash_until_their_first_update() -> None:
    """conv4 learns in steps 2 and 3: nothing in step 1, one copy in step 2, weight and accumulator in step 3."""
    plan = plan_for({"fc"}, {"conv4", "fc"}, {"conv4", "fc"})
    blocks = {block.key[1]: block for block in plan.blocks if block.key[0] == ""}
    conv4 = next(weight for weight in plan.learned if weight.name == "conv4.weight")
    lengths = [len(plan.program(k).calls) + len(plan.predict.calls) for k in (1, 2, 3)]
    assert blocks[conv4.weight.name].intervals[0][0] == lengths[0]
    assert conv4.gradient is not None
    assert blocks[conv4.gradient.name].intervals == ((lengths[0] + lengths[1], sum(lengths) - 1),)


def test_a_layer_updated_once_has_no_accumulator_of_its_own() -> None:
    plan = plan_for({"conv4", "fc"}, {"fc"})
    conv4 = next(weight for weight in plan.learned if weight.name == "conv4.weight")
    assert conv4.gradient is None


def test_the_arena_is_the_maximum_over_steps_not_of_the_union() -> None:
    apart = plan_for({"conv2"}, {"conv4"})
    together = plan_for({"conv2", "conv4"})
    assert apart.arena_bytes < together.arena_bytes + 4 * 8 * 8 * 9


@pytest.mark.parametrize(("channels", "rho", "bound"), [(8, 0, 8), (1, 500, 1), (8, 300, 5), (2, 999, 1), (10, 1, 9)])
def test_kept_channels_bound(channels: int, rho: int, bound: int) -> None:
    assert kept_channels_bound(channels, rho) == bound


def test_placement_reaches_the_lower_bound_on_the_network_of_the_paper() -> None:
    plan = plan_for(set(LAYERS), {"conv3", "norm3", "conv4", "norm4", "fc"})
    assert plan.placement.size == plan.placement.lower_bound


def with_adaptation(model: Model, **changes: object) -> Model:
    return Model(model.graph, replace(model.adaptation, **changes))  # type: ignore[arg-type]


def test_a_micro_batch_keeps_samples_and_not_their_maps() -> None:
    """Attention of some layers: of each sample more only its bytes and its label are held."""
    alone = random_4conv(0, width=8)
    sizes = [make_plan(with_adaptation(alone, sample_batch=count)).arena_bytes for count in (2, 3, 12)]
    per_sample = prod(alone.graph.input_shape) + 4
    assert sizes[1] - sizes[0] == per_sample + 4  # the arena is a multiple of 8
    assert sizes[2] - sizes[0] == 10 * per_sample
    without = with_adaptation(alone, attention={})
    assert make_plan(with_adaptation(without, sample_batch=12)).arena_bytes == make_plan(without).arena_bytes


def test_what_cannot_be_planned_is_refused() -> None:
    model = random_4conv(0, width=4)
    with pytest.raises(ModelError, match="nothing would learn"):
        make_plan(with_adaptation(model, alpha=frozen_float32(np.zeros((9, 3)))))
