"""What the planner reaches on the networks that others publish figures for.

    python -m benchmarks.plan          or   make bench-plan

Bytes follow from the plan alone, so they are the same on every machine. "Dynamic" is counted as the paper does: uint8
sample, maps, stores, masks and gradient accumulators, not the updated weights; the most of any moment, for one sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.networks import four_conv, three_conv
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.project.c_source import ram_model
from pmeta.codegen.project.fit import firmware_ram
from pmeta.codegen.report.figures import dynamic_bytes
from pmeta.codegen.storage import Storage

EVERYTHING = "everything"


@dataclass(frozen=True)
class Case:
    """One figure: what is planned, what is counted, and what to stay below."""

    title: str
    model: Model
    count: Callable[[Plan], int]
    what: str  # is counted
    limit: int
    others: str  # what others need


def main() -> None:
    """Print the table; exit code 1 where a limit is passed."""
    table = Table("network", "learns", "counted", "bytes", "goal", "others", "placement", "seconds")
    passed = True
    for case in cases():
        started = time.monotonic()
        plan = make_plan(case.model)
        seconds = time.monotonic() - started
        size = case.count(plan)
        passed &= size <= case.limit
        network, learns = case.title.split("; ")
        ratio = plan.placement.size / plan.placement.lower_bound
        goal = f"[{'green' if size <= case.limit else 'red'}]≤ {case.limit:,}[/]"
        table.add_row(network, learns, case.what, f"{size:,}", goal, case.others, f"{ratio:.3f}", f"{seconds:.2f}")
    Console(width=150).print(table)
    print("placement: bytes of the arena ÷ the largest set of bytes that live at once, which no placement can beat")
    raise SystemExit(0 if passed else 1)


def cases() -> tuple[Case, ...]:
    """The goals that docs/results.md reports."""
    upper = {"conv3", "norm3", "conv4", "norm4", "fc"}
    return (
        Case(
            "4Conv-32, 84×84×3; conv3, norm3, conv4, norm4, fc",
            adapting(four_conv(), upper, steps=5),
            *(dynamic_bytes, "dynamic", 460_000, "p-Meta, Table 2: 1.04 MB, x̂ not counted"),
        ),
        Case(
            "4Conv-32, 84×84×3, float16; conv3, norm3, conv4, norm4, fc",
            adapting(four_conv(), upper, steps=5, storage=Storage("float16", "float16")),
            *(dynamic_bytes, "dynamic", 360_000, "p-Meta, Table 2: 1.04 MB, x̂ not counted"),
        ),
        Case(
            f"4Conv-32, 84×84×3; {EVERYTHING}",
            adapting(four_conv(), None, steps=5),
            *(dynamic_bytes, "dynamic", 850_000, "MAML, Table 2: 2.06 MB"),
        ),
        Case(
            "4Conv-32, 28×28×1; conv4, norm4, fc",
            adapting(four_conv((1, 28, 28)), {"conv4", "norm4", "fc"}, steps=3),
            *(firmware_ram, "whole firmware", 124_000, "an STM32F405 has 131,072"),
        ),
        Case(
            f"3 conv, 16 filters, no norm, 28×28×1; {EVERYTHING}",
            adapting(three_conv(), None, steps=2),
            *(ram_model, "library", 110_000, "AIfES: 217,148 at batch 1"),
        ),
    )


def adapting(graph: Graph, learning: Collection[str] | None, steps: int, storage: Storage | None = None) -> Model:
    """The layers that learn do so in every step; None: all."""
    layers = [layer.name for layer in graph.layers]
    chosen = np.array([learning is None or name in learning for name in layers])
    channels = graph.input_shape[0]
    adaptation = Adaptation(
        method="benchmark",
        ways=graph.output_shape[0],
        shots=5,
        alpha=frozen_float32(np.outer(chosen, np.full(steps, 0.01))),
        updates=(("weight", "bias"),) * len(layers),
        rho_fw=0,
        rho_bw=0,
        encoding=InputEncoding("uint8", (2.0**-7,) * channels, (-1.0,) * channels),
        storage=storage or Storage(),
    )
    return Model(graph, adaptation)


if __name__ == "__main__":
    main()
