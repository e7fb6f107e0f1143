"""Outer iterations per second of the trainer, beside a plain loop that does the same (`benchmarks/plain_maml.py`).

    python -m benchmarks.trainer_speed
    python -m benchmarks.trainer_speed --device cpu --threads 1 --json

MAML, second order, 4Conv, 5-way 5-shot with 5 queries per class, 4 tasks, K = 5, random samples. The variants take
turns, so that whatever else the machine does slows all of them; figures are medians over the turns.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pmeta.trainer.threads import SPINS

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))

import torch
import typer
from torch import Tensor

from benchmarks import plain_maml
from pmeta.trainer.allocator import keep_freed_memory
from pmeta.trainer.config import Config, config_from_dict
from pmeta.trainer.meta_learner import MetaLearner
from pmeta.trainer.objective import TaskBatch

WAYS, SHOTS, QUERIES, TASKS, STEPS, ALPHA = 5, 5, 5, 4, 5, 0.05
SHAPES = {"28x28x1": (1, 28, 28), "84x84x3": (3, 84, 84)}
SECONDS_PER_TURN = 1.0

Settings = dict[str, dict[str, str | bool]]  # variant → [training]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    samples: str
    variant: str
    iterations_per_second: float
    ratio: float  # to the plain loop


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")] = "auto",
    width: Annotated[int, typer.Option(help="Channels of every convolution.")] = 32,
    turns: Annotated[int, typer.Option(min=1, help="How often every variant is measured.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: PyTorch's.")] = None,
    shape: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SHAPES)}; default: all.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Also under torch.compile, at first minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure and print."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()  # for all variants alike
    if threads is not None:
        torch.set_num_threads(threads)
    target = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    name = torch.cuda.get_device_name() if target.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    unknown = set(shape or ()) - set(SHAPES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose of {', '.join(SHAPES)}", param_hint="--shape")
    compared = variants(target) | ({"pmeta, compiled": {"compile": True}} if compiled else {})
    rows = [row for samples in shape or SHAPES for row in measured(samples, width, target, turns, compared)]
    if as_json:
        print(json.dumps({"device": name, "torch": torch.__version__, "width": width, "turns": turns,
                          "rows": [vars(row) for row in rows]}))  # fmt: skip
        return
    print(f"4Conv-{width}, {name}, torch {torch.__version__}\n")
    print("| samples | | iterations/s | × the plain loop |\n|---|---|---:|---:|")
    for row in rows:
        print(f"| {row.samples} | {row.variant} | {row.iterations_per_second:.2f} | {row.ratio:.2f} |")


def measured(samples: str, width: int, device: torch.device, turns: int, compared: Settings) -> list[Row]:
    """The plain loop and all variants on samples of one shape, taking turns."""
    tasks = random_tasks(SHAPES[samples], device)
    runs = {"plain loop": plain_loop(SHAPES[samples], width, tasks, device)}
    for variant, settings in compared.items():
        runs[variant] = trainer(SHAPES[samples], width, tasks, device, settings)
    for run in runs.values():
        run()  # libraries choose their algorithms; on a GPU the trainer captures its graph
    seconds: dict[str, list[float]] = {variant: [] for variant in runs}
    for _ in range(turns):
        for variant, run in runs.items():
            seconds[variant].append(seconds_per_call(run, device))
    medians = {variant: statistics.median(values) for variant, values in seconds.items()}
    return [
        Row(samples, variant, 1 / value, statistics.median(
            plain / mine for plain, mine in zip(seconds["plain loop"], seconds[variant], strict=True)))
        for variant, value in medians.items()
    ]  # fmt: skip


def variants(device: torch.device) -> Settings:
    """[training] settings to compare; the first is what a configuration gets that says nothing."""
    if device.type == "cpu":
        return {"pmeta": {}, "pmeta, vmap": {"batching": "vmap"}}
    return {
        "pmeta": {},
        "pmeta, no CUDA graph": {"cuda_graph": False},
        "pmeta, direct convolution": {"convolution": "direct"},
        "pmeta, loop": {"batching": "loop"},
        "pmeta, TF32": {"precision": "tf32"},
    }


def random_tasks(shape: tuple[int, int, int], device: torch.device) -> TaskBatch:
    """TASKS tasks of normally distributed samples."""
    generator = torch.Generator().manual_seed(0)

    def samples(per_class: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(TASKS, WAYS * per_class, *shape, generator=generator).to(device)
        return x, torch.eye(WAYS, device=device).repeat(per_class, 1).expand(TASKS, -1, -1).contiguous()

    return TaskBatch(*samples(SHOTS), *samples(QUERIES))


def plain_loop(shape: tuple[int, int, int], width: int, tasks: TaskBatch, device: torch.device) -> Callable[[], object]:
    """An outer iteration of the reference."""
    module = plain_maml.four_conv(shape[0], shape[1], width, width // 8, WAYS).to(device)
    optimizer = torch.optim.Adam(module.parameters())
    support_y, query_y = tasks.support_y.argmax(-1), tasks.query_y.argmax(-1)
    arrays = (tasks.support_x, support_y, tasks.query_x, query_y)
    return lambda: plain_maml.meta_step(module, optimizer, arrays, STEPS, ALPHA)


def trainer(
    shape: tuple[int, int, int], width: int, tasks: TaskBatch, device: torch.device, settings: dict[str, str | bool]
) -> Callable[[], object]:
    """An outer iteration of the trainer."""
    learner = MetaLearner(configuration(width, settings), shape, device)
    return lambda: learner.step(tasks, 0)


def configuration(width: int, settings: dict[str, str | bool]) -> Config:
    return config_from_dict(
        {
            "task": {"ways": WAYS, "shots": SHOTS, "queries": QUERIES},
            "network": {"width": width, "groups": width // 8},
            "method": {"name": "maml", "steps": STEPS, "alpha": ALPHA},
            "training": {"tasks_per_batch": TASKS, "clip_norm": 0} | settings,
        },
        "benchmark",
    )


def seconds_per_call(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call, averaged over SECONDS_PER_TURN; on one CPU thread processor time: others share it less."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    calls, start = 0, clock()
    while True:
        run()  # ends with a wait for the device
        calls += 1
        elapsed = clock() - start
        if elapsed >= SECONDS_PER_TURN:
            return elapsed / calls


if __name__ == "__main__":
    typer.run(main)
