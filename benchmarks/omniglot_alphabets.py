"""Omniglot: which alphabets a model confuses, and with what.

    python -m benchmarks.omniglot_alphabets models/omniglot-20way-1shot.onnx

For each alphabet of the held-back ones (or of the evaluation set: --test evaluation): how many of its queries
are taken for another character, and how many of those for one of the same alphabet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import DataError
from pmeta.codegen.taskfile import Task
from pmeta.trainer.commands.common import TEST_SEED
from pmeta.trainer.datasets import registry
from pmeta.trainer.datasets.omniglot import Omniglot
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.objective import query_logits
from pmeta.trainer.tasks import fixed_tasks
from pmeta.trainer.trained import Trained, load_trained

QUERIES = 5  # per character


class Alphabets(StrEnum):
    """Those that were not trained on."""

    HELD_BACK = "held-back"
    EVALUATION = "evaluation"


def main(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    path: Annotated[Path | None, typer.Option(help="where Omniglot is")] = None,
    tasks: Annotated[int, typer.Option(min=1)] = 600,
    test: Annotated[Alphabets, typer.Option(help="which alphabets")] = Alphabets.HELD_BACK,
) -> None:
    """Which alphabets a model confuses, as a Markdown table."""
    torch.set_num_threads(1)
    trained = load_trained(model, torch.device("cpu"))
    data = replace(_data(trained, model), path=path, test=test.value).load("test")
    drawn = fixed_tasks(data, trained.ways, trained.shots, QUERIES, tasks, TEST_SEED)
    asked, wrong, within = Counter[str](), Counter[str](), Counter[str]()
    for task in track(drawn, "tasks", console=Console(stderr=True)):
        for is_of, taken_for in _answers(trained, task):
            alphabet = is_of.split("/")[0]
            asked[alphabet] += 1
            wrong[alphabet] += is_of != taken_for
            within[alphabet] += is_of != taken_for and taken_for.split("/")[0] == alphabet
    print(f"{trained.ways}-way {trained.shots}-shot, {tasks} tasks\n")
    characters = Counter(name.split("/")[0] for name in data.class_names)
    print("| alphabet | characters | errors | of these, for a character of the same alphabet |\n|---|---:|---:|---:|")
    for alphabet in sorted(asked, key=lambda name: wrong[name] / asked[name]):
        shares = f"{_percent(wrong[alphabet], asked[alphabet])} | {_percent(within[alphabet], wrong[alphabet])}"
        print(f"| {alphabet.replace('_', ' ')} | {characters[alphabet]} | {shares} |")
    shares = f"{_percent(wrong.total(), asked.total())} | {_percent(within.total(), wrong.total())}"
    print(f"| all | {data.num_classes} | {shares} |")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _data(trained: Trained, model: Path) -> Omniglot:
    """The data set a model was trained on."""
    options = trained.record.get("config", {}).get("data", {})
    data = registry.dataset(options, str(model)) if options else None
    if not isinstance(data, Omniglot):
        raise DataError("was not trained on Omniglot", str(model), "use models/omniglot-20way-1shot.onnx")
    return data


def _answers(trained: Trained, task: Task) -> Iterator[tuple[str, str]]:
    """Of every query: the character it is, and the one it is taken for."""
    batch = task_batch([task], trained.encoding, torch.device("cpu"))
    _, after = query_logits(trained.inner, trained.meta, batch, trained.sample_batch)
    for label, answer in zip(task.query_y, after[0].argmax(1).tolist(), strict=True):
        yield task.class_names[label], task.class_names[answer]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog="Example: python -m benchmarks.omniglot_alphabets models/omniglot-20way-1shot.onnx")(main)
    cli_errors.run(app)
