"""pmeta-train: data sets and configurations in, model.onnx out.

torch is imported by the commands that compute, not here: `pmeta-train tasks` works without it.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import BuildError, ConfigError, DataError
from pmeta.codegen.report.text import count_text
from pmeta.codegen.taskfile import MAX_FILE_BYTES, MAX_TASKS, save_tasks
from pmeta.trainer.config import Config, config_from_dict, load_config

if TYPE_CHECKING:
    import torch

    from pmeta.codegen.adaptation import Model
    from pmeta.trainer.training import Progress as TrainingProgress
    from pmeta.trainer.training import Training

CONFIGS = Path(__file__).parent / "configs"
TEST_SEED = 10_000

app = typer.Typer(
    help="Meta-train networks that learn on microcontrollers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
tasks_app = typer.Typer(help="Write few-shot tasks to a file for pmeta-host.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
console = Console(stderr=True)


class Device(StrEnum):
    """Where to compute; auto takes a CUDA GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Split(StrEnum):
    """Part of a data set; no class is in two of them."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


SplitOption = Annotated[Split, typer.Option(help="Part of the data set to draw tasks from.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


@app.command(epilog="Example: pmeta-train icons --config icons-quick.toml --out model.onnx")
def icons(
    config: Annotated[Path, typer.Option(help="TOML file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    run_dir: Annotated[Path, typer.Option(help="Checkpoint and logs go here.")] = Path("runs/icons"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run directory's checkpoint.")] = False,
    iterations: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Train on the icons data set and export the model that validated best."""
    torch_device = _torch_device(device)
    from pmeta.codegen.modelfile import save_model
    from pmeta.trainer.datasets.icons import load_icons
    from pmeta.trainer.training import Training

    if not out.parent.is_dir():
        raise ConfigError("its folder does not exist", str(out), "create it, or choose another --out")
    if out.exists() and not out.is_file():
        raise ConfigError("is no file", str(out), "choose another --out")
    settings = _with_overrides(load_config(_config_path(config)), iterations, seed)
    training = Training(settings, load_icons("train"), load_icons("val"), run_dir, torch_device)
    if resume:
        training.resume()
    elif training.checkpoint_path.exists():
        raise ConfigError(
            "already holds a training", str(run_dir), "add --resume to continue it, or choose another --run-dir"
        )
    save_model(_run(training), out)
    console.print(f"{out}: the model of the best validation, ready for pmeta-gen", markup=False, soft_wrap=True)


@app.command(epilog="Example: pmeta-train evaluate model.onnx --tasks 600")
def evaluate(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 600,
    split: SplitOption = Split.TEST,
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples per class; default: as trained.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class.")] = 15,
    sample_batch: Annotated[int | None, typer.Option(min=1, help="Micro-batch size; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
    device: DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure accuracy on icons before and after adaptation, with 95 % intervals."""
    torch_device = _torch_device(device)
    from pmeta.codegen.modelfile import load_model
    from pmeta.trainer.datasets.icons import load_icons
    from pmeta.trainer.evaluation import evaluate as measure
    from pmeta.trainer.export import from_model
    from pmeta.trainer.tasks import fixed_tasks

    loaded = load_model(model)
    adaptation = loaded.adaptation
    inner, meta = from_model(loaded, torch_device)
    shots = shots or adaptation.shots
    drawn = fixed_tasks(load_icons(split.value), adaptation.ways, shots, queries, tasks, seed)
    with _progress_bar() as progress:
        bar = progress.add_task("evaluating", total=tasks, note="")
        result = measure(
            inner, meta, drawn, adaptation.encoding, sample_batch or adaptation.sample_batch, torch_device,
            lambda count: progress.advance(bar, count),
        )  # fmt: skip
    if as_json:
        print(json.dumps({"ways": adaptation.ways, "shots": shots, "split": split.value, "seed": seed}
                         | result.as_dict()))  # fmt: skip
        return
    print(f"{adaptation.ways}-way {shots}-shot, {count_text(tasks, 'task')} of the {split.value} split")
    print(f"before adaptation  {100 * result.before:6.2f} % ± {100 * result.before_interval:.2f}")
    print(f"after adaptation   {100 * result.after:6.2f} % ± {100 * result.after_interval:.2f}")


@tasks_app.command("icons", epilog="Example: pmeta-train tasks icons --count 20 --out tasks.npz")
def tasks_icons(
    out: Annotated[Path, typer.Option(help="Where to write the tasks.")],
    split: SplitOption = Split.TEST,
    count: Annotated[int, typer.Option(min=1, max=MAX_TASKS, help="How many tasks.")] = 20,
    ways: Annotated[int, typer.Option(min=2, max=256, help="Classes per task.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support samples per class.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
) -> None:
    """Draw tasks from the icons data set. The same options give the same bytes."""
    from pmeta.trainer.datasets.icons import load_icons
    from pmeta.trainer.tasks import fixed_tasks

    data = load_icons(split.value)
    size = count * ways * (shots + queries) * data.images[0].nbytes
    if size > MAX_FILE_BYTES // 2:  # task files are read whole
        what = f"{size >> 20:,} MiB of samples are too many for one file"
        raise DataError(what, str(out), "lower --count, --shots or --queries")
    save_tasks(fixed_tasks(data, ways, shots, queries, count, seed), out)
    console.print(f"{out}: {count_text(count, 'task')}, {ways}-way {shots}-shot", markup=False, soft_wrap=True)


def main() -> NoReturn:
    """The console script."""
    cli_errors.run(app)


# --- helpers -------------------------------------------------------------------------------------------------


def _torch_device(choice: Device) -> torch.device:
    # Threads that spin while they wait are twenty times slower on a machine that is busy with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except ImportError as error:
        raise BuildError(
            "PyTorch is not installed", "pmeta-train", "run: pip install 'pmeta-toolchain[train]'"
        ) from error
    available = torch.cuda.is_available()
    if choice is Device.CUDA and not available:
        raise ConfigError("no CUDA GPU is available", "--device", "use --device cpu")
    # Full float32: the device computes in it, and what is compared with it should too.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if available and choice is not Device.CPU else "cpu")


def _config_path(path: Path) -> Path:
    shipped = CONFIGS / path.name
    return shipped if not path.exists() and path.parent == Path() and shipped.exists() else path


def _with_overrides(config: Config, iterations: int | None, seed: int | None) -> Config:
    training = config.training
    changed = replace(
        training,
        iterations=training.iterations if iterations is None else iterations,
        seed=training.seed if seed is None else seed,
    )
    return config_from_dict(replace(config, training=changed).as_dict(), "command line")


def _run(training: Training) -> Model:
    """Train under a progress bar."""
    import torch

    with _progress_bar() as progress:
        total = training.config.training.iterations
        bar = progress.add_task("training", total=total, completed=training.iteration, note="")

        def show(state: TrainingProgress) -> None:
            note = f"loss {state.report.loss:.3f}"
            if state.validation is not None:
                note += f", validation {100 * state.validation.after:.1f} % (best {100 * state.best:.1f} %)"
            progress.update(bar, completed=state.iteration, note=note)

        try:
            return training.run(show)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            todo = "lower training.tasks_per_batch, network.width or method.steps"
            raise ConfigError("needs more memory than there is", "training", todo) from error
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"stopped after iteration {training.iteration}, saved in {training.checkpoint_path}: "
                "run the same command with --resume to continue",
                markup=False,
                soft_wrap=True,
            )
            raise


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip


if __name__ == "__main__":
    main()
