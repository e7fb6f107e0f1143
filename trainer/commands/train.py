"""pmeta-train train: a configuration in, model.onnx out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmeta.codegen.errors import ConfigError
from pmeta.trainer.commands.common import Device, DeviceOption, check_file, console, progress_bar, torch_device
from pmeta.trainer.config import Config, config_from_dict, load_config
from pmeta.trainer.config_file import config_path

if TYPE_CHECKING:
    import torch

    from pmeta.trainer.distributed import Processes
    from pmeta.trainer.training import Progress, Training


def train(
    config: Annotated[Path, typer.Argument(help="TOML file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    run_dir: Annotated[
        Path | None, typer.Option(help="Checkpoint and logs go here; default: runs/ and the configuration's name.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Where the data are, instead of the configuration's path.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run directory's checkpoint.")] = False,
    iterations: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Train on the configuration's data set and export the model that validated best.

    torchrun spreads the tasks of an iteration over processes: torchrun --nproc-per-node 4 -m pmeta.trainer.cli train …
    What the trainer can do and the device cannot (batch normalization, sparse maps) goes into a file for evaluation
    alone: --out NAME.pt.
    """
    torch_on = torch_device(device)
    from pmeta.codegen.modelfile import save_model
    from pmeta.trainer.checkpoint import CHECKPOINT
    from pmeta.trainer.distributed import together
    from pmeta.trainer.export import check_exportable
    from pmeta.trainer.trained import SUFFIX

    check_file(out)
    settings = _with_overrides(load_config(config_path(config)), iterations, seed, path)
    if out.suffix != SUFFIX:
        check_exportable(settings)
    run_dir = run_dir or Path("runs") / config.stem
    if out.resolve() == (run_dir / CHECKPOINT).resolve():
        raise ConfigError("is the training's checkpoint", str(out), "choose another --out")
    with together(torch_on) as processes:
        console.quiet = not processes.first
        training = _trained(settings, run_dir, resume, torch_on, processes)
        if processes.first and out.suffix == SUFFIX:
            training.save_best(out)
        elif processes.first:
            save_model(training.best_model(), out)
    use = "pmeta-train evaluate" if out.suffix == SUFFIX else "pmeta-gen"
    console.print(f"{out}: the model of the best validation, ready for {use}", markup=False, soft_wrap=True)


def _trained(settings: Config, run_dir: Path, resume: bool, device: torch.device, processes: Processes) -> Training:
    """Read the data and train, or go on."""
    from pmeta.trainer.training import Training

    with console.status(f"reading {settings.data.name}"):
        data = settings.data.load("train"), settings.data.load("val")
        training = Training(settings, *data, run_dir, device, processes)
    if resume:
        training.resume()
    elif training.checkpoint_path.exists():
        raise ConfigError(
            "already holds a training", str(run_dir), "add --resume to continue it, or choose another --run-dir"
        )
    run(training)
    return training


def _with_overrides(config: Config, iterations: int | None, seed: int | None, path: Path | None) -> Config:
    training = config.training
    changed = replace(
        training,
        iterations=training.iterations if iterations is None else iterations,
        seed=training.seed if seed is None else seed,
    )
    checked = config_from_dict(replace(config, training=changed).as_dict(), "command line")
    return replace(checked, data=replace(config.data, path=path or config.data.path))


def run(training: Training) -> None:
    """Train under a progress bar."""
    from pmeta.trainer.training import explained_memory_errors

    with progress_bar() as progress:
        total = training.config.training.iterations
        bar = progress.add_task("training", total=total, completed=training.iteration, note="")

        def show(state: Progress) -> None:
            progress.update(bar, completed=state.iteration, note=state.note)

        try:
            with explained_memory_errors():
                training.finish(show)
        except KeyboardInterrupt:
            progress.stop()
            console.print(stopped(training), markup=False, soft_wrap=True)
            raise


def stopped(training: Training) -> str:
    """What is saved of a training that was interrupted, and how to go on."""
    if training.saved is None:
        return f"stopped at once, in iteration {training.iteration + 1}: nothing is saved"
    where = f"saved in {training.checkpoint_path}: run the same command with --resume to continue"
    if training.saved == training.iteration:
        return f"stopped after iteration {training.iteration}, {where}"
    return f"stopped at once, in iteration {training.iteration + 1}; iteration {training.saved} is {where}"
