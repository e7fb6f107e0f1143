"""Measures what a unit of each kernel's work costs on every emulated core, in instructions: MACs, rows, elements, ...

    python -m benchmarks.instructions_per_mac              measure, write codegen/report/instructions.json, check
    python -m benchmarks.instructions_per_mac --no-write   measure and check only

Networks of all kinds of shapes run in QEMU, every kernel call counted by itself. Per kernel and core, the instructions
of its calls are fitted by a sum over the units of work of `pmeta.codegen.report.work`, none negative, so that relative
errors are small. `pmeta-gen` estimates time from these numbers. The check is the shipped model, which is not among the
networks measured: whole samples and ends of steps, against the estimate. Exit code 1 if one is off by more than 15 %.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.counting_firmware import CORES, versions
from benchmarks.emulated_counts import Counted, count_calls, count_whole
from pmeta.codegen import cli_errors
from pmeta.codegen.adaptation import Adaptation, AttentionModule, InputEncoding, LayerAttention, Model
from pmeta.codegen.boards import BOARDS, NETDUINOPLUS2
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.networks import four_conv, mlp, resnet12
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.strategy import STRATEGIES, Strategy
from pmeta.codegen.project.regions import divided
from pmeta.codegen.report.instructions import TABLE, estimate_prediction, estimate_step, measured_costs
from pmeta.codegen.storage import MapType, Storage, StoredType
from tests.models import random_samples
from tests.networks import random_network

COMMAND = "python -m benchmarks.instructions_per_mac"
SHIPPED = Path(__file__).parents[1] / "models" / "icons-4conv-5way.onnx"
# Boards that firmware is generated for: no virt machine; another one with a Cortex-M4F.
_SAME = tuple(board for board in CORES if board in BOARDS.values() and board.core != NETDUINOPLUS2.core)
CHECKED_ON = (NETDUINOPLUS2, *_SAME)
RANDOM_NETWORKS = 40
WITHIN = 0.15
LENGTH_WEIGHT = 0.25  # power of its instructions with which a call counts


@dataclass(frozen=True)
class Cost:
    """Of one kernel on one core."""

    instructions: Mapping[str, float]  # per unit of work
    shapes: int  # different ones that were measured
    worst: float  # relative error of the fit

    def to_json(self) -> dict[str, Any]:
        rounded = {unit: round(count, 2) for unit, count in self.instructions.items()}
        return {"instructions": rounded, "shapes": self.shapes, "worst error": round(self.worst, 3)}


def main(
    write: Annotated[bool, typer.Option(help="Write codegen/report/instructions.json.")] = True,
) -> None:
    """Measure, fit, write, check."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder))
        console.print(cost_table(costs))
        if write:
            TABLE.write_text(table_json(costs), encoding="utf-8")
            measured_costs.cache_clear()
        if not check(Path(folder), console):
            raise typer.Exit(1)


def measure(folder: Path) -> dict[str, dict[str, Cost]]:
    """By core and kernel."""
    counted: dict[str, dict[str, list[Counted]]] = {board.core: defaultdict(list) for board in CORES}
    for number, plan in enumerate(track(list(plans()), "networks", console=Console(stderr=True))):
        sample = random_samples(plan.model, number, 1)[0][0]
        for board in CORES:
            for call in count_calls(divided(plan, [board]), sample, board, folder / f"{number}-{board.name}"):
                counted[board.core][call.kernel].append(call)
    return {core: {name: fit(calls) for name, calls in sorted(kernels.items())} for core, kernels in counted.items()}


def plans() -> Iterator[Plan]:
    """Networks under every way to plan, and every type of storage where x̂ is computed again."""
    for number, model in enumerate(models()):
        yield make_plan(model, [STRATEGIES[number % len(STRATEGIES)]])
    rng = np.random.default_rng(1)
    for storage in (Storage(kept, maps) for kept in get_args(StoredType) for maps in get_args(MapType)):
        for size in (16, 24):
            graph = four_conv((2, size, size), 5, 8, 2, rng)
            yield make_plan(learning(graph, storage, uint8=True), [Strategy(4, recompute=True, encoded=True)])


def models() -> Iterator[Model]:
    """Networks that together use every kernel, in many shapes and with all types of storage."""
    rng = np.random.default_rng(0)
    storages = itertools.cycle(Storage(kept, maps) for kept in get_args(StoredType) for maps in get_args(MapType))
    for size, width, groups in ((28, 32, 8), (20, 16, 4), (42, 8, 2), (84, 4, 1)):
        for uint8 in (True, False):
            channels = 1 if size == 28 else 3
            graph = four_conv((channels, size, size), 5, width, groups, rng)
            yield learning(graph, Storage(), uint8, attention=width > 8)
            yield learning(graph, next(storages), uint8, attention=width > 8)
    yield learning(resnet12((3, 24, 24), channels=(8, 16), rng=rng), Storage(), uint8=True)
    yield learning(mlp(rng=rng), Storage())
    for outputs in (1, 3, 10):
        numbers = learning(mlp(8, (16,), outputs, rng), Storage())
        yield replace(numbers, adaptation=replace(numbers.adaptation, loss="mean_squared_error"))
    for storage, inputs in zip(storages, (16, 24, 32, 48, 64, 96), strict=False):
        yield learning(mlp(inputs, (32, inputs), 10, rng), storage, attention=True)
    for seed in range(RANDOM_NETWORKS):
        model = random_network(seed)
        yield replace(model, adaptation=replace(model.adaptation, attention={}))


def learning(graph: Graph, storage: Storage, uint8: bool = False, attention: bool = False) -> Model:
    """Everything learns, in two steps. Attention scores all channels alike, so that it keeps as many as it ever can."""
    layers, channels = graph.layers, graph.input_shape[0]
    sizes = {layer.name: layer.attention_channels(graph.shapes[layer.input]) for layer in layers[:-1]}
    modules = {name: LayerAttention(*map(indifferent, pair)) for name, pair in sizes.items()}
    encoding = InputEncoding("uint8", (2.0**-7,) * channels, (-1.0,) * channels)
    adaptation = Adaptation(
        method="benchmark",
        ways=graph.output_shape[0],
        shots=1,
        alpha=frozen_float32(np.full((len(layers), 2), 0.01)),
        updates=(("weight", "bias"),) * len(layers),
        rho_fw=300,
        rho_bw=300,
        encoding=encoding if uint8 else InputEncoding("float32"),
        attention=modules if attention else {},
        storage=storage,
    )
    return Model(graph, adaptation)


def indifferent(channels: int) -> AttentionModule:
    """An attention module that scores all channels alike."""
    matrix, vector = frozen_float32(np.zeros((channels, channels))), frozen_float32(np.zeros(channels))
    return AttentionModule(matrix, vector, matrix, vector)


def fit(calls: Sequence[Counted]) -> Cost:
    """Instructions per unit of work, none negative, with the least squares of the relative errors.

    A long call, where time is spent, counts somewhat more than a short one. How well a compiler used the registers
    differs from shape to shape, and is no unit of work: errors remain.
    """
    by_work: dict[tuple[tuple[str, float], ...], list[float]] = defaultdict(list)
    for call in calls:
        by_work[tuple(call.work.items())].append(call.instructions)
    units = [unit for unit, _ in next(iter(by_work))]
    amounts = np.array([[amount for _, amount in work] for work in by_work], float)
    instructions = np.array([np.mean(counts) for counts in by_work.values()])
    relative = amounts / instructions[:, None]
    weights = instructions**LENGTH_WEIGHT
    used = list(range(len(units)))
    while True:
        solution = np.linalg.lstsq(relative[:, used] * weights[:, None], weights, rcond=None)[0]
        if solution.min() >= 0:
            break
        used.pop(int(solution.argmin()))
    per_unit = dict.fromkeys(units, 0.0) | {units[n]: float(v) for n, v in zip(used, solution, strict=True)}
    worst = float(np.abs(relative[:, used] @ solution - 1).max())
    return Cost(per_unit, len(by_work), worst)


def cost_table(costs: Mapping[str, Mapping[str, Cost]]) -> Table:
    table = Table("core")
    table.add_column("kernel", no_wrap=True)
    for heading in ("instructions per unit of work", "shapes", "worst error"):
        table.add_column(heading)
    for core, kernels in costs.items():
        for name, cost in kernels.items():
            units = ", ".join(f"{unit} {count:.1f}" for unit, count in cost.instructions.items() if count >= 0.05)
            table.add_row(core, name, units, str(cost.shapes), f"{100 * cost.worst:.1f} %")
    return table


def table_json(costs: Mapping[str, Mapping[str, Cost]]) -> str:
    cores = {core: {name: cost.to_json() for name, cost in kernels.items()} for core, kernels in costs.items()}
    provenance = {
        "command": COMMAND,
        **versions(CORES),
    }
    return json.dumps({**provenance, "cores": cores}, indent=1) + "\n"


def check(folder: Path, console: Console) -> bool:
    """Whether the estimates for the shipped model are right, within WITHIN; prints them beside what was measured."""
    plan = make_plan(load_model(SHIPPED))
    sample = random_samples(plan.model, 0, 1)[0][0]
    table = Table("board", "what", "measured", "estimated", "ratio", title=f"{SHIPPED.name}, instructions")
    ratios = []
    for board in CHECKED_ON:
        whole = count_whole(plan, sample, board, folder / f"check-{board.name}")
        rows = [("prediction", whole.prediction, estimate_prediction(plan, board.core))]
        for step, (first, end) in enumerate(zip(whole.samples, whole.ends, strict=True), start=1):
            estimate = estimate_step(plan, step, board.core)
            rows.append((f"step {step}, one sample", first + end, estimate and estimate.of(1)))
        for what, measured, estimated in rows:
            ratios.append((estimated or 0.0) / measured)
            table.add_row(board.name, what, f"{measured:,.0f}", f"{estimated or 0:,.0f}", f"{ratios[-1]:.3f}")
    console.print(table)
    return all(abs(ratio - 1) <= WITHIN for ratio in ratios)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog=f"Example: {COMMAND}")(main)
    cli_errors.run(app)
