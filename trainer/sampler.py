"""Training tasks: drawn on the host, gathered and augmented on the device.

The whole training set lies on the device as uint8. The host draws indices only, from a generator that is seeded by
(seed, iteration): iteration n of a training is the same whether it was reached in one go or after a resume, and no
state of a random generator has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.errors import DataError
from pmeta.trainer.config import AugmentationConfig, TaskConfig
from pmeta.trainer.datasets.base import ClassImages
from pmeta.trainer.encoding import decode
from pmeta.trainer.objective import TaskBatch


@dataclass(frozen=True)
class Draw:
    """Index arrays of T tasks; S = shots + queries samples of each class, support first."""

    images: npt.NDArray[np.int64]  # (T, ways, S), into the data set
    symmetry: npt.NDArray[np.int64]  # (T, ways), number of one of the eight symmetries of the square
    shift: npt.NDArray[np.int64]  # (T, ways, S, 2), rows and columns


class TaskSampler:
    """Draws training tasks from `data` and puts them together on `device`."""

    def __init__(
        self,
        data: ClassImages,
        task: TaskConfig,
        augmentation: AugmentationConfig,
        encoding: InputEncoding,
        device: torch.device,
    ) -> None:
        self._task, self._augmentation, self._encoding = task, augmentation, encoding
        self._members = _members_by_class(data, task)
        self._images = torch.tensor(data.images, device=device).flatten(2)
        self._size = data.images.shape[2:]
        self._symmetries = _symmetry_maps(self._size, augmentation).to(device)
        self._labels = torch.eye(task.ways, device=device)

    def draw(self, seed: int, iteration: int, tasks: int) -> Draw:
        """The random choices of one iteration."""
        rng = np.random.default_rng([seed, iteration])
        ways, samples = self._task.ways, self._task.shots + self._task.queries
        classes = np.argsort(rng.random((tasks, len(self._members))), axis=1)[:, :ways]
        images = np.empty((tasks, ways, samples), np.int64)
        for index in np.ndindex(tasks, ways):
            images[index] = rng.choice(self._members[classes[index]], samples, replace=False)
        largest = self._augmentation.shift
        return Draw(
            images=images,
            symmetry=rng.integers(0, len(self._symmetries), (tasks, ways)),
            shift=rng.integers(-largest, largest + 1, (tasks, ways, samples, 2)),
        )

    def gather(self, draw: Draw) -> TaskBatch:
        """The drawn tasks, augmented and decoded to float32, on the device."""
        device = self._images.device
        images, symmetry, shift = (
            torch.from_numpy(a).to(device, non_blocking=True) for a in (draw.images, draw.symmetry, draw.shift)
        )
        tasks, ways, samples = images.shape
        height, width = self._size
        # Target pixel (r, c) shows source pixel symmetry(clamp((r, c) - shift)).
        rows = (torch.arange(height, device=device) - shift[..., :1]).clamp(0, height - 1)
        columns = (torch.arange(width, device=device) - shift[..., 1:]).clamp(0, width - 1)
        pixels = (rows[..., :, None] * width + columns[..., None, :]).flatten(3)  # (T, ways, S, H·W)
        maps = self._symmetries[symmetry][:, :, None].expand(-1, -1, samples, -1)
        source = maps.gather(3, pixels)[:, :, :, None]  # one for all channels
        raw = self._images[images]  # (T, ways, S, C, H·W)
        raw = raw.gather(4, source.expand(-1, -1, -1, raw.shape[3], -1))
        x = decode(raw.reshape(tasks, ways, samples, -1, height, width), self._encoding)
        y = self._labels[None, :, None].expand(tasks, -1, samples, -1)
        shots = self._task.shots
        return TaskBatch(
            x[:, :, :shots].flatten(1, 2), y[:, :, :shots].flatten(1, 2),
            x[:, :, shots:].flatten(1, 2), y[:, :, shots:].flatten(1, 2),
        )  # fmt: skip


def _members_by_class(data: ClassImages, task: TaskConfig) -> list[npt.NDArray[np.int64]]:
    members = [np.flatnonzero(data.labels == label) for label in range(len(data.class_names))]
    enough = [indices for indices in members if len(indices) >= task.shots + task.queries]
    if len(enough) < task.ways:
        raise DataError(
            f"only {len(enough)} classes have {task.shots + task.queries} samples, {task.ways} are needed",
            "training data",
            "lower task.ways, task.shots or task.queries",
        )
    return enough


def _symmetry_maps(size: tuple[int, ...], augmentation: AugmentationConfig) -> Tensor:
    """(number of symmetries, H·W): where each pixel of the transformed image comes from."""
    height, width = size
    if augmentation.rotate_classes and height != width:
        raise DataError(f"images of {height}x{width} cannot be rotated", "training data", "set rotate_classes = false")
    identity = torch.arange(height * width).reshape(height, width)
    flips = [identity, identity.flip(1)] if augmentation.flip_classes else [identity]
    turns = range(4) if augmentation.rotate_classes else range(1)
    return torch.stack([torch.rot90(image, turn).flatten() for image in flips for turn in turns])
