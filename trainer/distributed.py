"""The tasks of an iteration, spread over processes and machines that torchrun started.

Every process draws the same tasks and takes its share; gradients are summed, so every process holds the same
parameters. One process, without torchrun, is the same thing with nothing to exchange.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pmeta.codegen.errors import ConfigError

# Others wait while the first process validates, which may take long.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one validates, shows and writes; the others only compute."""
        return self.rank == 0

    def share(self, tasks: int) -> slice:
        """Which of an iteration's tasks are this process's: all of them, every count-th, none twice."""
        if tasks < self.count:
            raise ConfigError(
                f"{self.count} processes, but only {tasks} tasks per iteration", "training.tasks_per_batch",
                f"set it to {self.count} or more, or start fewer processes",
            )  # fmt: skip
        return slice(self.rank, tasks, self.count)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all processes: the same bits everywhere."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it holds in any process, so that all of them end a run at the same iteration."""
        if self.count == 1:
            return here
        flag = torch.tensor([float(here)], device=device)
        dist.all_reduce(flag)
        return bool(flag.item() > 0)

    def from_first(self, value: Any) -> Any:
        """What the first process passes, in all of them."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = Processes()


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes, where torchrun started several: NCCL between GPUs, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
