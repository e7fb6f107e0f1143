"""How closely the simulator follows PyTorch: gradients, discrete decisions and predictions on tasks.

    python -m benchmarks.torch_vs_simulator model.onnx tasks.npz --tasks 4

Gradients are compared step by step from the simulator's weights, PyTorch given the simulator's decisions (channels kept
by attention, ReLU signs, pool winners). How often PyTorch decides otherwise is counted apart. For predictions, PyTorch
adapts all by itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pmeta.codegen.adaptation import Model
from pmeta.codegen.cli_errors import run
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.operators import Clip, HardSwish, LeakyRelu, MaxPool, Relu
from pmeta.codegen.targets import targets_of
from pmeta.codegen.taskfile import load_tasks
from pmeta.host.simulator import Simulator
from pmeta.host.simulator.sample_pass import SamplePass
from tests.reference import torch_adaptation
from tests.reference.torch_adaptation import Decisions

DECISIONS = ("kept_fw", "kept_bw", "passes", "winners")
Samples = npt.NDArray[Any]  # (N, ...) as they travel


@dataclass
class Comparison:
    """Figures of one or more tasks; every support sample counts once per step."""

    samples: int = 0
    differing: Counter[str] = field(default_factory=Counter)  # samples with another decision: by kind, and "any"
    gradient_error: dict[str, float] = field(default_factory=dict)  # by weight: max |Δ| ÷ largest, worst step
    queries: int = 0
    agreeing: int = 0  # queries with the same prediction

    @property
    def worst_gradient_error(self) -> float:
        return max(self.gradient_error.values(), default=0.0)


def compare(
    model: Model,
    support_x: Samples,
    support_y: Samples,
    query_x: Samples,
    result: Comparison,
    advance: Callable[[], None] = lambda: None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Adapt to one task in both, and add the figures to `result`; calls `advance` after every sample and query."""
    simulator = Simulator(model)
    decoded = torch_adaptation.decode(model, support_x, dtype)
    while not simulator.finished:
        _compare_step(model, simulator, support_x, decoded, support_y, result, advance)
    predicted = []
    for sample in query_x:
        predicted.append(int(np.argmax(simulator.predict(sample))))
        advance()
    weights = torch_adaptation.adapt(model, decoded, support_y)
    reference = torch_adaptation.predict(model, weights, torch_adaptation.decode(model, query_x, dtype)).argmax(1)
    result.queries += len(query_x)
    result.agreeing += int(np.count_nonzero(reference.numpy() == predicted))


def _compare_step(
    model: Model,
    simulator: Simulator,
    support_x: Samples,
    decoded: torch.Tensor,
    support_y: Samples,
    result: Comparison,
    advance: Callable[[], None],
) -> None:
    weights, step = torch_weights(simulator, decoded.dtype), simulator.step
    simulated = simulate_step(model, simulator, support_x, support_y)
    reference = forced_gradients(model, weights, step, decoded, support_y, simulated.decisions)
    for name, gradient in simulated.gradients.items():
        error = relative_error(gradient, reference[name])
        result.gradient_error[name] = max(result.gradient_error.get(name, 0.0), error)
    for x, target, decisions in zip(decoded, targets_of(support_y), simulated.decisions, strict=True):
        free = torch_adaptation.sample_gradients(model, weights, step, x, target)
        count_differences(decisions, free.decisions, result)
        advance()


@dataclass(frozen=True)
class SimulatedStep:
    """What the simulator did in one step."""

    gradients: dict[str, Float32Array]  # by weight name, summed over the samples
    decisions: list[Decisions]  # per sample


def simulate_step(model: Model, simulator: Simulator, support_x: Samples, support_y: Samples) -> SimulatedStep:
    """Let the simulator take one step, watching it."""
    totals: dict[str, Float32Array] = {}
    decisions = []
    for sample, target in zip(support_x, targets_of(support_y), strict=True):
        traced = simulator.trace_sample(sample, target)
        for name, contribution in traced.contributions.items():
            totals[name] = contribution.added_to(totals.get(name, np.zeros_like(contribution.d)))
        decisions.append(simulated_decisions(model, traced))
        simulator.adapt_sample(sample, target)
    simulator.end_step(len(support_x))
    return SimulatedStep(totals, decisions)


def torch_weights(simulator: Simulator, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The simulator's present weights."""
    return {name: torch.tensor(array, dtype=dtype) for name, array in simulator.weights.items()}


def forced_gradients(
    model: Model,
    weights: dict[str, torch.Tensor],
    step: int,
    decoded: torch.Tensor,
    support_y: Samples,
    decisions: list[Decisions],
) -> dict[str, npt.NDArray[Any]]:
    """PyTorch's gradients of one step, summed over the samples, with the decisions it is given."""
    totals: dict[str, npt.NDArray[Any]] = {}
    for x, target, forced in zip(decoded, targets_of(support_y), decisions, strict=True):
        found = torch_adaptation.sample_gradients(model, weights, step, x, target, forced).gradients
        for name, gradient in found.items():
            totals[name] = totals.get(name, np.zeros(gradient.shape)) + gradient.numpy()
    return totals


def relative_error(gradient: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """The largest difference ÷ the reference's largest magnitude; 0 where they are equal."""
    difference, largest = float(np.abs(gradient - reference).max()), float(np.abs(reference).max())
    if difference == 0:
        return 0.0
    return difference / largest if largest else np.inf


def simulated_decisions(model: Model, traced: SamplePass) -> Decisions:
    """The decisions that the simulator took for one sample."""
    saved = traced.forward.saved
    found = Decisions()
    for node in model.graph.nodes:
        if isinstance(node, Clip | LeakyRelu | Relu):
            found.passes[node.name] = torch.tensor(~saved[node.name])
        elif isinstance(node, HardSwish):
            x = torch.tensor(saved[node.name])
            found.passes[node.name] = torch.stack([x > -3, x < 3])
        elif isinstance(node, MaxPool):
            found.winners[node.name] = torch.tensor(saved[node.name].best)
    for layer, gamma in traced.gammas.items():
        if gamma.fw is not None:
            found.kept_fw[layer] = torch.tensor(gamma.fw != 0)
        if gamma.bw is not None:
            found.kept_bw[layer] = torch.tensor(gamma.bw != 0)
    return found


def count_differences(ours: Decisions, theirs: Decisions, result: Comparison) -> None:
    """Count one sample, and the kinds of decisions in which it differs."""
    result.samples += 1
    kinds = [kind for kind in DECISIONS if _differ(getattr(ours, kind), getattr(theirs, kind))]
    result.differing.update(kinds + ["any"] * bool(kinds))


def _differ(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours)


def main(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.onnx.")],
    task_file: Annotated[Path, typer.Argument(metavar="TASKS", help="A task file.")],
    tasks: Annotated[int, typer.Option(min=1, help="How many of its tasks.")] = 1,
    queries: Annotated[int, typer.Option(min=1, help="At most so many queries, over all tasks.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare the simulator with PyTorch on tasks.

    Example: python -m benchmarks.torch_vs_simulator model.onnx tasks.npz --tasks 4 --json
    """
    model, chosen = load_model(model_file), load_tasks(task_file)[:tasks]
    each = -(-queries // len(chosen))
    total = sum(len(task.support_x) * model.adaptation.steps + len(task.query_x[:each]) for task in chosen)
    result = Comparison()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("comparing", total=total)
        for task in chosen:
            compare(model, task.support_x, task.support_y, task.query_x[:each], result, lambda: progress.advance(bar))
    if as_json:
        print(json.dumps({**asdict(result), "worst_gradient_error": result.worst_gradient_error}, sort_keys=True))
    else:
        Console().print(_table(result))


def _table(result: Comparison) -> Table:
    table = Table("what", "figure")
    table.add_row("support samples × steps", str(result.samples))
    labels = ("kept channels, forward", "kept channels, backward", "ReLU signs", "pool winners", "any of them")
    for label, kind in zip(labels, (*DECISIONS, "any"), strict=True):
        share = result.differing[kind] / max(result.samples, 1)
        table.add_row(f"samples decided otherwise: {label}", f"{result.differing[kind]} ({share:.2%})")
    for name, error in result.gradient_error.items():
        table.add_row(f"gradient error ÷ largest: {name}", f"{error:.1e}")
    table.add_row("queries predicted alike", f"{result.agreeing} of {result.queries}")
    return table


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
