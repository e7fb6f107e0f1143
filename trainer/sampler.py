"""Training tasks: drawn and read on the host, ahead of time; put together and augmented on the device.

The data set may lie in a file far larger than memory: only the samples that are drawn are read. What is drawn follows
from (seed, iteration): iteration n of a training is the same whether it was reached in one go or after a resume, and no
state of a random generator has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmeta.codegen.adaptation import InputEncoding
from pmeta.trainer.augmentation import Augmentation, Changes
from pmeta.trainer.config import AugmentationConfig, TaskConfig
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer
from pmeta.trainer.encoding import decode
from pmeta.trainer.objective import TaskBatch

KEPT_ON_GPU = 1 << 30  # bytes: a data set up to this size is copied to the GPU once, whole


@dataclass(frozen=True)
class Draw:
    """Index arrays of T tasks; S = shots + queries samples of each class, support first."""

    samples: npt.NDArray[np.int64]  # (T, ways, S), into the data set
    changes: Changes

    def share(self, tasks: slice) -> Draw:
        """Some of the tasks."""
        return Draw(self.samples[tasks], self.changes.share(tasks))


@dataclass(frozen=True)
class Read:
    """A draw with its samples: on the host, on a CPU put together already."""

    draw: Draw
    raw: Tensor | None  # (T, ways, S, *shape); None: all samples are on the device
    tasks: TaskBatch | None = None


class TaskSampler:
    """Draws training tasks from `data` and puts them together on `device`."""

    def __init__(
        self,
        data: ClassSamples,
        task: TaskConfig,
        augmentation: AugmentationConfig,
        encoding: InputEncoding,
        device: torch.device,
        source: str = "the data",
    ) -> None:
        """source: what errors call `data`."""
        self._task, self._encoding = task, encoding
        self._drawer = TaskDrawer(data, task.ways, task.shots, task.queries, task.same_family, source)
        self._augmentation = Augmentation(augmentation, data.shape, device)
        self._device, self._samples = device, data.samples
        small = device.type == "cuda" and data.samples.nbytes <= KEPT_ON_GPU
        self._on_gpu = torch.from_numpy(np.array(data.samples)).to(device) if small else None
        self._labels = torch.eye(task.ways, device=device)

    def draw(self, seed: int, iteration: int, tasks: int) -> Draw:
        """The random choices of one iteration."""
        rng = np.random.default_rng([seed, iteration])
        drawings = [self._drawer.draw(rng) for _ in range(tasks)]
        samples = np.stack([np.concatenate([drawing.support, drawing.query], axis=1) for drawing in drawings])
        return Draw(samples, self._augmentation.draw(samples.shape, rng))

    def read(self, draw: Draw) -> Read:
        """What can be done before the device is free; safe in another thread."""
        if self._on_gpu is not None:
            return Read(draw, None)
        raw = torch.from_numpy(self._samples[draw.samples])
        if self._device.type == "cpu":
            return Read(draw, raw, self._assembled(raw, draw))
        return Read(draw, raw.pin_memory())

    def assemble(self, read: Read) -> TaskBatch:
        """The tasks, augmented and decoded to float32, on the device."""
        if read.tasks is not None:
            return read.tasks
        if read.raw is not None:
            return self._assembled(read.raw.to(self._device, non_blocking=True), read.draw)
        assert self._on_gpu is not None
        return self._assembled(self._on_gpu[torch.from_numpy(read.draw.samples).to(self._device)], read.draw)

    def gather(self, draw: Draw) -> TaskBatch:
        """Both at once."""
        return self.assemble(self.read(draw))

    def _assembled(self, raw: Tensor, draw: Draw) -> TaskBatch:
        x = decode(self._augmentation.apply(raw, draw.changes), self._encoding)
        y = self._labels[None, :, None].expand(*x.shape[:1], -1, x.shape[2], -1)
        shots = self._task.shots
        return TaskBatch(
            x[:, :, :shots].flatten(1, 2), y[:, :, :shots].flatten(1, 2),
            x[:, :, shots:].flatten(1, 2), y[:, :, shots:].flatten(1, 2),
        )  # fmt: skip
