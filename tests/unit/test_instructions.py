"""Estimated instructions: work counted by brute force, costs from the measured table, nothing where it is silent."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from benchmarks.counting_firmware import CORES
from pmeta.codegen.adaptation import Model
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.program import Call
from pmeta.codegen.plan.strategy import STRATEGIES
from pmeta.codegen.project.channel_rates import channel_rates
from pmeta.codegen.report import instructions, macs, work
from pmeta.codegen.report.instructions import StepEstimate, estimate_prediction, estimate_step, measured_costs
from pmeta.codegen.report.work import call_work, kernel_name
from tests.models import random_4conv
from tests.networks import random_network
from tests.unit.test_appendix_a import tiny_model

pytestmark = pytest.mark.unit

M4F = "Cortex-M4F"


def calls_of(plan: Plan, kernel: str) -> list[Call]:
    return [call for program in (*plan.adapt, plan.predict) for call in program.calls if kernel_name(call) == kernel]


def test_the_cores_that_estimates_are_made_for_were_measured() -> None:
    assert {board.core for board in CORES} == measured_costs().keys()


def test_every_kernel_that_has_a_mac_count_has_work_and_was_measured() -> None:
    """What is missing in the table comes from `make bench-instructions`."""
    kernels = {function.rpartition(" ")[2] for function in macs._MACS}
    assert kernels == work._WORK.keys()
    for core, costs in measured_costs().items():
        assert kernels <= costs.keys(), f"{core}: {kernels - costs.keys()} not measured"


@pytest.mark.parametrize("seed", range(20))
def test_every_kernel_of_any_network_has_work_and_costs(seed: int) -> None:
    model = random_network(seed)
    plan = make_plan(model, [STRATEGIES[seed % len(STRATEGIES)]])
    for core, costs in measured_costs().items():
        for call in (call for program in (*plan.adapt, plan.predict) for call in program.calls):
            amounts = call_work(call, model.adaptation)
            assert amounts is not None and costs[kernel_name(call)].keys() == amounts.keys(), call.function
            assert all(amount >= 0 for amount in amounts.values())
        rates = bool(model.adaptation.alpha_in or model.adaptation.alpha_out)  # their kernel was not measured
        assert rates or estimate_step(plan, 1, core) is not None
        assert estimate_prediction(plan, core) is not None


@pytest.mark.parametrize("seed", range(8))
def test_macs_of_a_convolution_are_the_taps_inside(seed: int) -> None:
    """Against a loop over every tap of every output."""
    found = 0
    for chain in itertools.count(100 * seed):
        model = random_network(chain)
        for call in calls_of(make_plan(model, STRATEGIES[:1]), "pmeta_conv_forward"):
            amounts, s = call_work(call, model.adaptation), call.arguments[0].value.fields  # type: ignore[union-attr]
            inside = sum(
                0 <= oh * s["stride_h"] + i * s["dilation_h"] - s["pad_top"] < s["in_h"]
                and 0 <= ow * s["stride_w"] + j * s["dilation_w"] - s["pad_left"] < s["in_w"]
                for oh in range(int(s["out_h"]))
                for ow in range(int(s["out_w"]))
                for i in range(int(s["kernel_h"]))
                for j in range(int(s["kernel_w"]))
            )
            assert amounts is not None
            assert amounts["mac"] == inside * s["filters"] * s["channels"] / s["groups"]
            found += 1
        if found > 2:
            return


def test_slices_and_attention_count() -> None:
    """Slices run the same MACs as the whole; of 16 channels, ρ = 0.3 keeps 11, in either direction."""
    model = random_4conv(0, width=16, steps=1)
    macs = []
    for strategy in (STRATEGIES[0], STRATEGIES[-1]):
        calls = calls_of(make_plan(model, [strategy]), "pmeta_conv_forward")
        calls = [call for call in calls if call.layer == "conv3"][:1]
        macs.append(
            sum((call.loop.slices if call.loop else 1) * call_work(call, model.adaptation)["mac"] for call in calls)
        )  # type: ignore[index]
    assert macs[0] == macs[1] == 19 * 19 * 16 * 16  # 7×7 outputs, three taps an axis, two of which miss one
    call = next(c for c in calls_of(make_plan(model), "pmeta_conv_weight_gradient") if c.layer == "conv3")
    assert executed_macs(call, model) == pytest.approx(19 * 19 * 11 * 11)


def executed_macs(call: Call, model: Model) -> float:
    """Of all slices."""
    amounts = call_work(call, model.adaptation)
    assert amounts is not None
    return (call.loop.slices if call.loop else 1) * amounts["mac"]


def test_an_estimate_is_the_sum_of_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call costs 1, a byte of the checksum 10, an updated element 100."""
    plan = make_plan(tiny_model([[0.0], [0.1]]))
    costs = {kernel: dict.fromkeys(cost, 0.0) | {"call": 1.0} for kernel, cost in measured_costs()[M4F].items()}
    costs["pmeta_crc32"] = {"byte": 10.0, "call": 0.0}
    costs["pmeta_update"] = {"element": 100.0, "call": 0.0}
    costs["pmeta_clear"] = {"element": 0.0, "call": 0.0}
    monkeypatch.setattr(instructions, "measured_costs", lambda: {M4F: costs})
    calls = sum(call.loop.slices if call.loop else 1 for call in plan.program(1).calls)
    estimate = StepEstimate(sample=calls + 10.0 * (2 * 4 * 4 * 4 + 4), end=100.0 * (2 * 3 + 2))
    assert estimate_step(plan, 1, M4F) == estimate
    assert estimate.of(5) == 5 * estimate.sample + estimate.end


def test_step_sizes_per_channel_cost_what_their_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An element of a weight that they scale costs 1, nothing else anything; without a measurement, no estimate."""
    models = (random_network(seed) for seed in itertools.count())
    plan = next(plan for plan in map(make_plan, models) if any(channel_rates(plan)))
    costs = {kernel: dict.fromkeys(cost, 0.0) for kernel, cost in measured_costs()[M4F].items()}
    costs["pmeta_scale_channels"] = {"element": 1.0, "column": 0.0, "row": 0.0, "call": 0.0}
    monkeypatch.setattr(instructions, "measured_costs", lambda: {M4F: costs})
    scaled = {rates.tensor for rates in channel_rates(plan)}
    for step in range(1, len(plan.program_of_step) + 1):
        updated = [weight for weight in plan.learned if step in weight.steps]
        elements = sum(weight.weight.bytes // 4 for weight in updated if f"tensor_{plan.names[weight.name]}" in scaled)
        assert estimate_step(plan, step, M4F) == StepEstimate(0.0, elements)
    del costs["pmeta_scale_channels"]
    assert estimate_step(plan, 1, M4F) is None


def test_nothing_is_estimated_where_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tiny_model([[0.1], [0.1]]))
    assert estimate_step(plan, 1, "host") is None and estimate_prediction(plan, "host") is None
    costs = {kernel: cost for kernel, cost in measured_costs()[M4F].items() if kernel != "pmeta_gemm_forward"}
    monkeypatch.setattr(instructions, "measured_costs", lambda: {M4F: costs})
    assert estimate_step(plan, 1, M4F) is None and estimate_prediction(plan, M4F) is None
    assert (
        call_work(dataclasses.replace(plan.predict.calls[0], function="pmeta_unknown"), plan.model.adaptation) is None
    )
