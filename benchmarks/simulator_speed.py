"""Processor time of a whole adaptation in the simulator, and a checksum of all that it computed.

    python -m benchmarks.simulator_speed
    python -m benchmarks.simulator_speed models/icons-4conv-5way.onnx --turns 5 --json

4Conv-32, 28×28×1, GroupNormalization with 8 groups, random weights, all layers learn in 5 steps; once more with meta
attention of all layers but the last, in both directions; then the models that are named. Each step takes 25 support
samples, each a micro-batch of its own where the model does not say otherwise; at the end 75 queries are predicted.

Seconds are of processor time, which other programs change less than the time on the clock, and of the fastest turn. The
checksum covers losses, predictions and weights: a change that keeps all bits keeps it.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pmeta.codegen.adaptation import Model
from pmeta.codegen.cli_errors import run
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.targets import targets_of
from pmeta.host.simulator import Simulator
from pmeta.host.simulator.arithmetic import canonical_bytes
from tests.models import random_4conv, random_samples

SUPPORT, QUERIES, STEPS = 25, 75, 5
GOAL = 10.0  # seconds, of the first network


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    network: str
    seconds: float  # processor time of the fastest turn
    checksum: str  # CRC-32, hexadecimal


def main(
    models: Annotated[list[Path] | None, typer.Argument(metavar="[MODEL]...", help="model.onnx files.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="How often each is measured; the fastest counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure adaptations in the simulator; exit code 1 where 4Conv-32 misses the goal.

    Example: python -m benchmarks.simulator_speed models/icons-4conv-5way.onnx --turns 5
    """
    measured = networks() | {path.name: load_model(path) for path in models or []}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("adapting", total=turns * sum(samples_of(model) for model in measured.values()))
        rows = [measure(name, model, turns, lambda: progress.advance(bar)) for name, model in measured.items()]
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        Console().print(_table(rows))
    raise SystemExit(0 if rows[0].seconds <= GOAL else 1)


def networks() -> dict[str, Model]:
    """The networks that are always measured."""
    settings = {"width": 32, "steps": STEPS, "groups": 8}
    return {
        "4Conv-32": random_4conv(1, attention=False, **settings),
        "4Conv-32, meta attention": random_4conv(1, attention=True, **settings),
    }


def samples_of(model: Model) -> int:
    """How many samples an adaptation takes: support samples in every step, and queries."""
    return SUPPORT * model.adaptation.steps + QUERIES


def measure(name: str, model: Model, turns: int, advance: Callable[[], None]) -> Row:
    """Adapt `turns` times; calls `advance` after every sample."""
    seconds, checksum = zip(*[_adaptation(model, advance) for _ in range(turns)], strict=True)
    return Row(name, min(seconds), f"{checksum[0]:08x}")


def _adaptation(model: Model, advance: Callable[[], None]) -> tuple[float, int]:
    """(seconds, checksum) of one adaptation."""
    support, targets = random_samples(model, 2, SUPPORT)
    queries, _ = random_samples(model, 3, QUERIES)
    computed = []
    started = time.process_time()
    simulator = Simulator(model)
    while not simulator.finished:
        for sample, target in zip(support, targets_of(targets), strict=True):
            computed.append(simulator.adapt_sample(sample, target).loss)
            advance()
        simulator.end_step(SUPPORT)
    for sample in queries:
        computed.append(simulator.predict(sample))
        advance()
    seconds = time.process_time() - started
    computed.extend(simulator.weights.values())
    return seconds, zlib.crc32(b"".join(canonical_bytes(np.asarray(array)) for array in computed))


def _table(rows: list[Row]) -> Table:
    table = Table("network", "seconds", "checksum", caption=f"goal of the first: ≤ {GOAL:.0f} s")
    for row in rows:
        table.add_row(row.network, f"{row.seconds:.2f}", row.checksum)
    return table


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
