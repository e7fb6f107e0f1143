"""Accuracy before and after adaptation, at the device's sample batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._pytree import tree_map

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.taskfile import Samples, Task
from pmeta.trainer.encoding import decode
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.intervals import mean_and_interval
from pmeta.trainer.objective import TaskBatch, accuracies
from pmeta.trainer.parallel import in_processes

TASKS_AT_ONCE = {"cpu": 4, "cuda": 50}

Part = Sequence[Task]
Outcomes = npt.NDArray[np.float64]  # (tasks, 3): accuracy before and after adaptation, in 0..1; query loss after it


@dataclass(frozen=True)
class Evaluation:
    """Means over tasks, in 0..1, with the half-width of their 95 % confidence interval (1.96 standard errors)."""

    tasks: int
    before: float
    before_interval: float
    after: float
    after_interval: float
    loss: float  # query loss after adaptation
    after_of_tasks: tuple[float, ...]  # what `after` is the mean of, in the order of the tasks

    def as_dict(self) -> dict[str, float]:
        """The means and intervals."""
        return {name: value for name, value in asdict(self).items() if name != "after_of_tasks"}


def evaluate(
    inner: InnerLoop,
    meta: MetaParameters,
    tasks: Iterable[Task],
    encoding: InputEncoding,
    sample_batch: int,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Adapt to every task and measure. All tasks have the same sizes; `advance` is told how many are done.

    workers: so many processes, on a CPU, of one thread each; the figures do not depend on their number. None: here,
    with the threads that PyTorch has.
    """
    parts = _parts(tasks, TASKS_AT_ONCE[device.type])
    found = []
    for part in _of_parts(inner, meta, parts, encoding, sample_batch, device, workers):
        found.append(part)
        if advance is not None:
            advance(len(part))
    before, after, loss = np.concatenate(found).T
    intervals = *mean_and_interval(before), *mean_and_interval(after)
    return Evaluation(len(loss), *intervals, float(loss.mean()), tuple(after.tolist()))


def _of_parts(
    inner: InnerLoop, meta: MetaParameters, parts: Iterator[Part], encoding: InputEncoding, sample_batch: int,
    device: torch.device, workers: int | None,
) -> Iterator[Outcomes]:  # fmt: skip
    """Of every part, in order."""
    if workers is None or device.type != "cpu":
        yield from map(_measurement(inner, meta, encoding, sample_batch, device), parts)
        return
    arrays = tree_map(lambda tensor: tensor.detach().numpy(), meta)
    yield from in_processes(_measurement_on_cpu, (inner, arrays, encoding, sample_batch), parts, workers)


def _measurement(
    inner: InnerLoop, meta: MetaParameters, encoding: InputEncoding, sample_batch: int, device: torch.device
) -> Callable[[Part], Outcomes]:
    (outputs,) = inner.graph.output_shape

    def measure(tasks: Part) -> Outcomes:
        results = accuracies(inner, meta, task_batch(tasks, encoding, device, outputs), sample_batch)
        return torch.stack(results, 1).cpu().numpy().astype(np.float64)

    return measure


def _measurement_on_cpu(
    inner: InnerLoop, arrays: MetaParameters, encoding: InputEncoding, sample_batch: int
) -> Callable[[Part], Outcomes]:
    """`_measurement`, from what can be sent to another process."""
    meta = tree_map(torch.from_numpy, arrays)
    return _measurement(inner, meta, encoding, sample_batch, torch.device("cpu"))


def _parts(tasks: Iterable[Task], size: int) -> Iterator[Part]:
    remaining = iter(tasks)
    while part := list(islice(remaining, size)):
        yield part


def task_batch(
    tasks: Sequence[Task], encoding: InputEncoding, device: torch.device, outputs: int | None = None
) -> TaskBatch:
    """Tasks of equal sizes as one batch on `device`. outputs: of the network; None: one for each class."""
    one_hot = torch.eye(tasks[0].ways, outputs or tasks[0].ways, device=device)

    def samples(arrays: Sequence[Samples]) -> torch.Tensor:
        return decode(torch.from_numpy(np.stack(arrays)).to(device), encoding)

    def labels(arrays: Sequence[Samples]) -> torch.Tensor:
        return one_hot[torch.from_numpy(np.stack(arrays).astype(np.int64)).to(device)]

    return TaskBatch(
        samples([t.support_x for t in tasks]), labels([t.support_y for t in tasks]),
        samples([t.query_x for t in tasks]), labels([t.query_y for t in tasks]),
    )  # fmt: skip
