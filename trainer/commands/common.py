"""What the commands share: where to compute, which data, progress bars."""

from __future__ import annotations

import os
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pmeta.codegen.errors import BuildError, ConfigError
from pmeta.trainer.allocator import keep_freed_memory
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.registry import DATASETS, dataset
from pmeta.trainer.settings import nearest
from pmeta.trainer.threads import spin_briefly

if TYPE_CHECKING:
    import torch

TEST_SEED = 10_000  # of test tasks, unless another is asked for
console = Console(stderr=True)


class Device(StrEnum):
    """Where to compute; auto takes a CUDA GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class SplitName(StrEnum):
    """Part of a data set; no class is in two of them."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SplitOption = Annotated[SplitName, typer.Option(help="Part of the data set to draw tasks from.")]
PathOption = Annotated[Path | None, typer.Option(help="File or folder of the data; default: see pmeta-train datasets.")]
DataOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the data set, as a table \\[data] has it; repeatable.",
    ),
]


def torch_device(choice: Device) -> torch.device:
    """The device to compute on. Raises BuildError without PyTorch, ConfigError without the GPU asked for."""
    spin_briefly()
    try:
        import torch
    except ImportError as error:
        raise BuildError("PyTorch is not installed", "pmeta-train", "run: pip install torch") from error
    available = torch.cuda.is_available()
    if choice is Device.CUDA and not available:
        raise ConfigError("no CUDA GPU is available", "--device", "use --device cpu")
    keep_freed_memory()
    # Full float32: the device computes in it, and what is compared with it should too.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if not available or choice is Device.CPU:
        return torch.device("cpu")
    gpu = int(os.environ.get("LOCAL_RANK", "0"))  # torchrun numbers the processes of a machine
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def check_file(out: Path) -> None:
    """Raises ConfigError where no file can be written: before the work, not after."""
    if not out.parent.is_dir():
        raise ConfigError("its folder does not exist", str(out), "create it, or choose another --out")
    if out.exists() and not out.is_file():
        raise ConfigError("is no file", str(out), "choose another --out")


def data_set(
    name: str, path: Path | None, options: list[str] | None, defaults: dict[str, Any] | None = None
) -> Dataset:
    """The data set of the options --data, --path and --option; `defaults`: options of the same data set elsewhere."""
    if name not in DATASETS:
        raise ConfigError(f"unknown data set '{name}'", "command line", nearest(name, sorted(DATASETS), ""))
    table = dict(defaults or {}) | {"name": name}
    for text in options or ():
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"{text!r} has no '='", "--option", "write KEY=VALUE")
        if key in ("name", "path"):
            instead = {"name": "--data", "path": "--path"}[key]
            raise ConfigError(f"{text!r} is no option of a data set", "--option", f"use {instead}")
        table[key] = _value(value)
    if path is not None:
        table["path"] = str(path)
    return dataset(table, "command line", "--option ")


def _value(text: str) -> Any:
    """A TOML value, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def progress_bar() -> Progress:
    """A bar with counts, times and a note."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip
