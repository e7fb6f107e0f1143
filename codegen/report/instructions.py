"""Estimates how many instructions a step takes on a core: the plan's calls, times measured instructions.

instructions.json says for each core and kernel how many instructions a unit of its work (`work`) takes, measured by
`python -m benchmarks.instructions_per_mac` with the compiler that it names. From instructions to seconds is one more
estimate: one instruction per cycle. Real cores need more where loads, branches and flash make them wait; one that
issues two instructions at a time may need less.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pmeta.codegen.boards import Board
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Program
from pmeta.codegen.project.c_source import sample_bytes
from pmeta.codegen.project.channel_rates import FUNCTION as SCALE_CHANNELS
from pmeta.codegen.project.channel_rates import channel_rates
from pmeta.codegen.report.work import call_work, kernel_name, scaling_work

TABLE = Path(__file__).with_name("instructions.json")
CYCLES_PER_INSTRUCTION = 1  # assumed
WORD_BYTES = 4

Costs = Mapping[str, Mapping[str, float]]  # kernel -> unit of work -> instructions


@dataclass(frozen=True)
class StepEstimate:
    """Estimated instructions of one step on one core."""

    sample: float  # of each support sample
    end: float  # of the step, besides its samples: accumulators cleared, weights updated

    def of(self, samples: int) -> float:
        """The whole step."""
        return samples * self.sample + self.end


@dataclass(frozen=True)
class BoardEstimate:
    """What runs on one board, in instructions."""

    board: Board
    steps: tuple[StepEstimate, ...]  # k = 1..K
    prediction: float  # of one query sample, after the last step

    def seconds(self, instructions: float) -> float:
        """One instruction per cycle: an assumption."""
        return CYCLES_PER_INSTRUCTION * instructions / self.board.clock_hz


def board_estimate(plan: Plan, board: Board) -> BoardEstimate | None:
    """All steps; None for a board whose core was not measured, or for a plan with kernels that were not."""
    steps = tuple(estimate_step(plan, step, board.core) for step in range(1, len(plan.program_of_step) + 1))
    prediction = estimate_prediction(plan, board.core)
    found = tuple(step for step in steps if step is not None)
    return BoardEstimate(board, found, prediction) if prediction is not None and len(found) == len(steps) else None


@cache
def measured_costs() -> Mapping[str, Costs]:
    """By core (`Board.core`), what was measured."""
    table = json.loads(TABLE.read_bytes())
    return {
        core: {name: cost["instructions"] for name, cost in kernels.items()} for core, kernels in table["cores"].items()
    }


def estimate_step(plan: Plan, step: int, core: str) -> StepEstimate | None:
    """Step k = 1..K; None where the core, or a kernel on it, was not measured.

    Where attention chooses channels at run time, the most that it can keep are counted.
    """
    costs = measured_costs().get(core)
    calls = None if costs is None else _program(plan, plan.program(step), costs)
    if costs is None or calls is None or (any(channel_rates(plan)) and SCALE_CHANNELS not in costs):
        return None
    targets = plan.model.adaptation.ways if plan.model.adaptation.regression else 1  # numbers, or a label
    checksum = _cost(costs["pmeta_crc32"], {"byte": sample_bytes(plan) + WORD_BYTES * targets, "call": 1 + targets})
    updated = [weight for weight in plan.learned if step in weight.steps]
    per_tensor = ({"element": weight.weight.bytes // WORD_BYTES, "call": 1} for weight in updated)
    end = sum(_cost(costs[name], work) for work in per_tensor for name in ("pmeta_clear", "pmeta_update"))
    tensors = {f"tensor_{plan.names[weight.name]}" for weight in updated}
    scaled = (rates for rates in channel_rates(plan) if rates.tensor in tensors)
    end += sum(_cost(costs[SCALE_CHANNELS], scaling_work(rates)) for rates in scaled)
    return StepEstimate(calls + checksum, end)


def estimate_prediction(plan: Plan, core: str) -> float | None:
    """One query sample, after the last step; None as for `estimate_step`."""
    costs = measured_costs().get(core)
    return None if costs is None else _program(plan, plan.predict, costs)


def _program(plan: Plan, program: Program, costs: Costs) -> float | None:
    """Instructions of all calls of a program."""
    total = 0.0
    for call in program.calls:
        work = call_work(call, plan.model.adaptation)
        cost = costs.get(kernel_name(call))
        if work is None or cost is None:
            return None
        total += (call.loop.slices if call.loop else 1) * _cost(cost, work)
    return total


def _cost(cost: Mapping[str, float], work: Mapping[str, float]) -> float:
    return sum(cost[unit] * amount for unit, amount in work.items())
