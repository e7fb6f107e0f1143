"""The shipped model among its baselines, on the same unseen tasks: the accuracy table of docs/results.md.

    python -m benchmarks.icons_results models/icons-4conv-5way.onnx --tasks 1000

Nearest class mean on raw pixels, a prototypical network of the model's size (trained here, some minutes), and the model
before and after adaptation at the device's micro-batch size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.icons_nearest_mean import nearest_mean_accuracy
from pmeta.codegen import cli_errors
from pmeta.codegen.errors import DataError
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.datasets.icons import load_icons
from pmeta.trainer.tasks import fixed_tasks

TEST_SEED = 10_000  # the tasks that `pmeta-train evaluate` and the prototype benchmark draw
QUERIES = 15


def main(
    model: Annotated[Path, typer.Argument(help="The model.onnx to measure.")],
    tasks: Annotated[int, typer.Option(min=2, help="Unseen tasks.")] = 1000,
    prototype_iterations: Annotated[int, typer.Option(min=1, help="Training of the baseline.")] = 6000,
) -> None:
    """Print the table as Markdown."""
    adaptation = load_model(model).adaptation
    trained_on = adaptation.training.get("config", {}).get("data", {"name": "icons"})["name"]
    if trained_on != "icons":
        raise DataError(
            f"was trained on {trained_on}", str(model), "use models/icons-4conv-5way.onnx, or train one on icons"
        )
    ways, shots = adaptation.ways, adaptation.shots
    print(f"{ways}-way {shots}-shot, {tasks} tasks of concepts never seen in training, {QUERIES} queries per class.\n")
    print("| method | accuracy | |\n|---|---:|---|")
    row("nearest class mean on raw pixels", *nearest_mean(ways, shots, tasks), "nothing is trained")
    measured = output("pmeta.trainer.cli", "evaluate", str(model), "--tasks", str(tasks), "--json")
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(adaptation.training["config"], Path(folder))
        options = ("--iterations", str(prototype_iterations), "--test-tasks", str(tasks), "--device", "cpu")
        prototype = output("benchmarks.icons_prototype", "--config", str(config), *options)
    note = f"{prototype_iterations} iterations, {prototype['seconds'] / 60:.0f} min; cannot learn on the device"
    row(f"prototypical network, width {prototype['width']}", prototype["accuracy"], prototype["interval"], note)
    row("pmeta, before adaptation", measured["before"], measured["before_interval"], "classes are not known yet")
    row("pmeta, after adaptation", measured["after"], measured["after_interval"], f"{adaptation.steps} steps")


def row(name: str, accuracy: float, interval: float, note: str) -> None:
    print(f"| {name} | {100 * accuracy:.2f} % ± {100 * interval:.2f} | {note} |", flush=True)


def nearest_mean(ways: int, shots: int, tasks: int) -> tuple[float, float]:
    """Mean accuracy and half-width of the 95 % interval."""
    drawn = fixed_tasks(load_icons("test"), ways, shots, QUERIES, tasks, TEST_SEED)
    scores = [nearest_mean_accuracy(task) for task in drawn]
    return float(np.mean(scores)), float(1.96 * np.std(scores, ddof=1) / np.sqrt(tasks))


def output(module: str, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON on its last line."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def write_config(config: dict[str, Any], folder: Path) -> Path:
    """The training configuration of the model's record, for the baseline: same tasks, width and augmentation."""
    path = folder / "icons.toml"
    tables = []
    for section in ("task", "network", "training", "augmentation", "input"):  # of the method it has nothing
        values = config[section]
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
        tables.append("\n".join([f"[{section}]", *lines]))
    path.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog="Example: python -m benchmarks.icons_results models/icons-4conv-5way.onnx --tasks 1000")(main)
    cli_errors.run(app)
