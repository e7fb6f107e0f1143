"""Smartwatch: how much adapting to a person's own first movements gains, for people never seen, all ten in five folds.

    for f in 0 1 2 3 4; do sed "s/^fold = .*/fold = $f/" trainer/configs/smartwatch.toml > fold$f.toml
        pmeta-train train fold$f.toml --out fold$f.onnx; done
    python -m benchmarks.smartwatch fold?.onnx --out smartwatch.png

Beside the meta-trained models stands the same network as one would train it otherwise: on all windows of the same
people, without tasks; as it is, and with its last layer or all of it fine-tuned on the same first movements by plain
gradient steps, whose size and number the validation people choose.

A wearer is a person with the watch on one arm. Figures are means over wearers, with 95 % intervals over wearers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pmeta.codegen import cli_errors
from pmeta.codegen.adaptation import InputEncoding, Model
from pmeta.codegen.errors import DataError
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.taskfile import Task
from pmeta.trainer.config import Config, config_from_dict
from pmeta.trainer.datasets.base import ClassSamples, Split
from pmeta.trainer.encoding import decode
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.export import from_model
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.networks import Network, weight_tensors
from pmeta.trainer.objective import accuracies
from pmeta.trainer.tasks import fixed_tasks

CPU = torch.device("cpu")
SHOTS, QUERIES = (1, 3, 5), 5
TEST_SEED, VALIDATION_SEED = 10_000, 20_000
VALIDATION_TASKS, TASKS_AT_ONCE = 20, 20
STEP_SIZES, STEP_NUMBERS = (0.03, 0.1, 0.3), (5, 10)
STEPS, BATCH, LEARNING_RATE = 1500, 64, 3e-3  # of ordinary training
MICRO_BATCH = 1  # as on the device

SHOWN = {  # in the picture: label and row
    "ordinary training, as it is": "ordinary: 0",
    "meta-trained, after 3 windows per movement": "meta-trained: 3",
    "ordinary, all layers fine-tuned on them": "ordinary, all layers fine-tuned: 3",
}

Learner = tuple[InnerLoop, MetaParameters]
ByWearer = dict[str, list[float]]
Rows = dict[str, ByWearer]  # by "how it learns: windows per movement"


@dataclass(frozen=True)
class Fold:
    """A model and the data of its configuration."""

    model: Model
    config: Config

    @staticmethod
    def of(file: Path, data: Path | None) -> Fold:
        model = load_model(file)
        trained_on = model.adaptation.training.get("config", {}).get("data", {}).get("name")
        if trained_on != "smartwatch":
            raise DataError("was not trained on smartwatch", str(file), "train it with trainer/configs/smartwatch.toml")
        config = config_from_dict(model.adaptation.training["config"], str(file))
        return Fold(model, replace(config, data=replace(config.data, path=data)))

    @property
    def encoding(self) -> InputEncoding:
        return self.model.adaptation.encoding

    def tasks(self, split: Split, shots: int, count: int, seed: int) -> tuple[Task, ...]:
        samples: ClassSamples = self.config.data.load(split)
        return fixed_tasks(samples, self.model.adaptation.ways, shots, QUERIES, count, seed)


def accuracy_by_wearer(learner: Learner, tasks: Sequence[Task], encoding: InputEncoding) -> tuple[ByWearer, ByWearer]:
    """Accuracies before and after adaptation of each task, by wearer."""
    before: ByWearer = {}
    after: ByWearer = {}
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        part = tasks[start : start + TASKS_AT_ONCE]
        found = accuracies(*learner, task_batch(part, encoding, CPU), MICRO_BATCH)
        for task, *values in zip(part, *(result.tolist() for result in found[:2]), strict=True):
            wearer = task.class_names[0].split(", ", 1)[1]
            for table, value in zip((before, after), values, strict=True):
                table.setdefault(wearer, []).append(value)
    return before, after


# --- the network without meta-learning -----------------------------------------------------------------------


def ordinary_weights(fold: Fold) -> dict[str, Tensor]:
    """The network trained on all windows of the training people, as any classifier."""
    data = fold.config.data.load("train")
    rng = np.random.default_rng(fold.config.training.seed)
    ways = fold.model.adaptation.ways
    network = Network(fold.config.network.graph(data.shape, ways, rng))
    samples, labels = torch.tensor(data.samples), torch.tensor(data.labels) % ways  # a wearer's classes are in order
    weights = {name: weight.requires_grad_() for name, weight in weight_tensors(network.graph).items()}
    optimizer = torch.optim.Adam(weights.values(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chosen = torch.from_numpy(rng.integers(0, len(samples), BATCH))
        logits = network.forward(weights, decode(samples[chosen], fold.encoding))
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return {name: weight.detach() for name, weight in weights.items()}


def fine_tuning(fold: Fold, weights: dict[str, Tensor], last_only: bool) -> Learner:
    """Plain gradient steps on the last layer or all, of the size and number that serve the validation people best."""
    tasks = fold.tasks("val", shots=3, count=VALIDATION_TASKS, seed=VALIDATION_SEED)
    graph = fold.model.graph
    layers = graph.layers[-1:] if last_only else graph.layers

    def learner(step_size: float, steps: int) -> Learner:
        learning = frozenset(name for layer in layers for name in layer.weight_names)
        alpha = torch.full((len(graph.layers), steps), step_size)
        inner = InnerLoop(Network(graph), steps, learning, rho_fw=0, rho_bw=0)
        return inner, {"weights": weights, "alpha": alpha, "attention": {}}

    def validated(candidate: Learner) -> float:
        _, after = accuracy_by_wearer(candidate, tasks, fold.encoding)
        return float(np.mean([value for values in after.values() for value in values]))

    return max((learner(*choice) for choice in product(STEP_SIZES, STEP_NUMBERS)), key=validated)


# --- results -------------------------------------------------------------------------------------------------


def measured(file: Path, data: Path | None, tasks: int) -> Rows:
    """Accuracies of the test people of one model's fold."""
    fold, rows = Fold.of(file, data), dict[str, ByWearer]()
    weights = ordinary_weights(fold)
    learners = {
        "meta-trained": from_model(fold.model, CPU),
        "ordinary, last layer fine-tuned": fine_tuning(fold, weights, last_only=True),
        "ordinary, all layers fine-tuned": fine_tuning(fold, weights, last_only=False),
    }
    for name, shots in product(learners, SHOTS):
        drawn = fold.tasks("test", shots, tasks, TEST_SEED)
        before, after = accuracy_by_wearer(learners[name], drawn, fold.encoding)
        rows[f"{name}: {shots}"] = after
        rows[f"{name.split(',')[0]}: 0"] = before
    return rows


def mean_and_interval(row: ByWearer) -> tuple[float, float]:
    """Over wearers: mean, and 1.96 standard errors."""
    means = [float(np.mean(values)) for values in row.values()]
    return float(np.mean(means)), 1.96 * float(np.std(means, ddof=1)) / sqrt(len(means))


def table(rows: Rows) -> str:
    """Markdown: a line for each way to learn, a column for each number of windows."""
    names = list(dict.fromkeys(key.split(":")[0] for key in rows))
    lines = ["| windows per movement | " + " | ".join(map(str, (0, *SHOTS))) + " |", "|---" * (2 + len(SHOTS)) + "|"]
    for name in names:
        cells = [mean_and_interval(rows[key]) if (key := f"{name}: {shots}") in rows else None for shots in (0, *SHOTS)]
        text = ["" if cell is None else f"{100 * cell[0]:.1f} ± {100 * cell[1]:.1f}" for cell in cells]
        lines.append(f"| {name} | {' | '.join(text)} |")
    return "\n".join(lines)


def draw(rows: Rows, out: Path) -> None:
    """Bars by wearer: the ordinary network as it is, and both kinds after three windows per movement."""
    import matplotlib.pyplot as plt

    wearers = sorted(rows["ordinary: 0"], key=lambda name: (int(name.split()[1].strip(",")), name))
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for number, (label, row) in enumerate((label, rows[key]) for label, key in SHOWN.items()):
        heights = [100 * np.mean(row[wearer]) for wearer in wearers]
        axes.bar(np.arange(len(wearers)) + 0.27 * (number - 1), heights, 0.27, label=label)
    axes.set_xticks(range(len(wearers)), [name.replace("person ", "").replace(", ", "\n") for name in wearers], size=7)
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(40, 100)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(out, dpi=150)


def main(
    files: Annotated[list[Path], typer.Argument(help="a model of each fold, or what --json wrote of it")],
    data: Annotated[Path | None, typer.Option(help="where the data set is")] = None,
    tasks: Annotated[int, typer.Option(help="test tasks of each fold and number of windows", min=1)] = 200,
    out: Annotated[Path | None, typer.Option(help="PNG file for the bars")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for every task's accuracy")] = None,
) -> None:
    """How much adapting to a person's own first movements gains, for people never seen."""
    torch.set_num_threads(1)
    rows: Rows = {}
    for file in track(files, "folds", console=Console(stderr=True)):
        found = stored(file) if file.suffix == ".json" else measured(file, data, tasks)
        for name, by_wearer in found.items():
            rows.setdefault(name, {}).update(by_wearer)
    print(table(rows))
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1))
    if out:
        draw(rows, out)


def stored(file: Path) -> Rows:
    """What --json wrote. Raises DataError."""
    try:
        rows: Rows = json.loads(file.read_text())
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(file), "check the path") from error
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", str(file), "measure the fold again") from error
    tables = isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values())
    if not tables or not all(isinstance(values, list) for row in rows.values() for values in row.values()):
        raise DataError("is not what --json writes", str(file), "measure the fold again")
    if missing := [key for key in SHOWN.values() if key not in rows]:
        raise DataError(f"has no '{missing[0]}'", str(file), "measure the fold again")
    return rows


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog="Example: python -m benchmarks.smartwatch fold0.onnx fold1.onnx --out smartwatch.png")(main)
    cli_errors.run(app)
