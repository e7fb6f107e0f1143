"""Training tasks: drawn on the host, put together and augmented on the device.

What is drawn follows from (seed, iteration): iteration n of a training is the same whether it was reached in one go or
after a resume, and no state of a random generator has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pmeta.codegen.adaptation import InputEncoding
from pmeta.trainer.augmentation import Augmentation, Changes
from pmeta.trainer.config import AugmentationConfig, TaskConfig
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer
from pmeta.trainer.encoding import decode
from pmeta.trainer.objective import TaskBatch


@dataclass(frozen=True)
class Draw:
    """Index arrays of T tasks; S = shots + queries samples of each class, support first."""

    samples: npt.NDArray[np.int64]  # (T, ways, S), into the data set
    changes: Changes


class TaskSampler:
    """Draws training tasks from `data` and puts them together on `device`."""

    def __init__(
        self,
        data: ClassSamples,
        task: TaskConfig,
        augmentation: AugmentationConfig,
        encoding: InputEncoding,
        device: torch.device,
    ) -> None:
        self._task, self._encoding = task, encoding
        self._drawer = TaskDrawer(data, task.ways, task.shots, task.queries)
        self._augmentation = Augmentation(augmentation, data.shape, device)
        self._samples = torch.tensor(data.samples, device=device)
        self._labels = torch.eye(task.ways, device=device)

    def draw(self, seed: int, iteration: int, tasks: int) -> Draw:
        """The random choices of one iteration."""
        rng = np.random.default_rng([seed, iteration])
        drawings = [self._drawer.draw(rng) for _ in range(tasks)]
        samples = np.stack([np.concatenate([drawing.support, drawing.query], axis=1) for drawing in drawings])
        return Draw(samples, self._augmentation.draw(samples.shape, rng))

    def gather(self, draw: Draw) -> TaskBatch:
        """The drawn tasks, augmented and decoded to float32, on the device."""
        raw = self._samples[torch.from_numpy(draw.samples).to(self._samples.device)]  # (T, ways, S, *shape)
        x = decode(self._augmentation.apply(raw, draw.changes), self._encoding)
        y = self._labels[None, :, None].expand(*x.shape[:1], -1, x.shape[2], -1)
        shots = self._task.shots
        return TaskBatch(
            x[:, :, :shots].flatten(1, 2), y[:, :, :shots].flatten(1, 2),
            x[:, :, shots:].flatten(1, 2), y[:, :, shots:].flatten(1, 2),
        )  # fmt: skip
