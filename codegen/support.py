"""Where the support set lies while the device adapts: with the host, in RAM, or in flash.

Streamed, every sample is sent again in every step. Kept on the device, it is sent once or never, and the device can
take all steps by itself (`pmeta_adapt()`); what it computes has the same bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, get_args

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.targets import target_bytes, targets_of
from pmeta.codegen.taskfile import Task, fitting, load_tasks

SupportPlace = Literal["stream", "ram", "flash"]
MAX_SAMPLES = 1 << 16
MAX_FLASH_BYTES = 16 << 20  # it is written as text


@dataclass(frozen=True)
class Support:
    """Where the support set lies, and how large it is."""

    place: SupportPlace = "stream"
    samples: int = 0  # most that RAM keeps; those in flash
    task: Task | None = None  # whose support set lies in flash

    def __post_init__(self) -> None:
        if (self.samples > 0) != (self.place != "stream") or (self.task is not None) != (self.place == "flash"):
            raise ValueError(f"samples and a task that do not go with '{self.place}'")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options that give this, for the canonical command."""
        return {
            "stream": (),
            "ram": ("--support ram", f"--support-samples {self.samples}"),
            "flash": ("--support flash", "--support-task task.npz"),
        }[self.place]

    @property
    def sha256(self) -> str:
        """Of what lies in flash; empty elsewhere."""
        return "" if self.task is None else support_sha256(self.task)

    def ram_bytes(self, model: Model) -> int:
        """Size of the static object that keeps it, a multiple of 8: the number of samples, and the samples."""
        exact = 4 + self.samples * _bytes_per_sample(model) if self.place == "ram" else 0
        return (exact + 7) // 8 * 8

    def flash_bytes(self, model: Model) -> int:
        return self.samples * _bytes_per_sample(model) if self.place == "flash" else 0


STREAMED = Support()


@dataclass(frozen=True)
class SupportOptions:
    """What the command line says."""

    place: str = "stream"
    samples: int | None = None  # most that RAM keeps; None: as many as the model was trained with
    task_file: Path | None = None  # whose first task's support set goes into flash

    def __post_init__(self) -> None:
        if self.place not in get_args(SupportPlace):
            raise ConfigError(f"no place is called '{self.place}'", "--support", "use stream, ram or flash")
        if self.samples is not None and self.place != "ram":
            raise ConfigError("only RAM needs a number of samples", "--support-samples", "pass --support ram")
        if (self.task_file is not None) != (self.place == "flash"):
            what = "a support set in flash comes from a task file, and only that does"
            raise ConfigError(what, "--support-task", "pass --support flash --support-task tasks.npz")
        if self.samples is not None and not 1 <= self.samples <= MAX_SAMPLES:
            raise ConfigError(f"{self.samples} samples", "--support-samples", f"use 1 to {MAX_SAMPLES}")

    def resolved(self, model: Model) -> Support:
        """For one model; raises ConfigError, or DataError where the task is none for it."""
        if self.place == "flash" and self.task_file is not None:
            return _in_flash(model, self.task_file)
        if self.place == "ram":
            return Support("ram", self.samples or _trained_samples(model))
        return STREAMED


def support_sha256(task: Task) -> str:
    """Of the bytes of all support samples and targets, in their order."""
    digest = hashlib.sha256()
    for sample, target in zip(task.support_x, targets_of(task.support_y), strict=True):
        digest.update(sample.tobytes() + target_bytes(target))
    return digest.hexdigest()


def _in_flash(model: Model, path: Path) -> Support:
    adaptation = model.adaptation
    task = fitting(
        load_tasks(path)[0], model.graph.input_shape, adaptation.encoding.kind, adaptation.ways, adaptation.loss
    )
    support = Support("flash", len(task.support_x), task)
    if support.flash_bytes(model) > MAX_FLASH_BYTES:
        what = f"a support set of {support.flash_bytes(model):,} bytes, at most {MAX_FLASH_BYTES:,} are possible"
        raise ConfigError(what, "--support-task", "use fewer samples")
    return support


def _trained_samples(model: Model) -> int:
    adaptation = model.adaptation
    if adaptation.method == "bring-your-own" or adaptation.regression:
        what = "how many samples the device shall keep is not known"
        raise ConfigError(what, "--support ram", "pass --support-samples N")
    return adaptation.ways * adaptation.shots


def _bytes_per_sample(model: Model) -> int:
    """Of a sample as it travels and its target."""
    adaptation = model.adaptation
    sample = prod(model.graph.input_shape) * adaptation.encoding.bytes_per_element
    return sample + 4 * (adaptation.ways if adaptation.regression else 1)
