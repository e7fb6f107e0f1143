"""The same stream of events as `pmeta.host.session`, computed by the bit-exact simulator instead of a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pmeta.codegen.targets import Target, targets_of
from pmeta.codegen.taskfile import Task
from pmeta.host.events import Event, Float32Array, Phase, QueryDone, SampleDone, StepDone

Sample = npt.NDArray[Any]  # as it travels, of the model's input shape


class SampleOutcome(Protocol):
    """What the simulator returns for a support sample."""

    @property
    def logits(self) -> Float32Array: ...  # (ways,)

    @property
    def loss(self) -> np.float32: ...


class SimulatedDevice(Protocol):
    """What is needed of `pmeta.host.simulator.simulator.Simulator`."""

    def reset(self) -> None: ...

    def adapt_sample(self, sample: Sample, target: Target) -> SampleOutcome: ...

    def end_step(self, samples: int) -> Sequence[str]: ...

    def predict(self, sample: Sample) -> Float32Array: ...

    def tensor_bytes(self, name: str) -> bytes: ...

    def tensor_crc32(self, name: str) -> int: ...


def simulated_events(simulator: SimulatedDevice, task: Task, steps: int, tensors: Sequence[str]) -> Iterator[Event]:
    """Adapts `task` in `steps` steps; `tensors` names the learned tensors whose CRC-32 a StepDone carries."""
    simulator.reset()
    targets = targets_of(task.support_y)
    yield from _predictions(simulator, task, "before")
    for step in range(1, steps + 1):
        for index, (sample, target) in enumerate(zip(task.support_x, targets, strict=True)):
            outcome = simulator.adapt_sample(sample, target)
            yield SampleDone(step, index, outcome.logits, outcome.loss)
        simulator.end_step(len(task.support_x))
        yield StepDone(step, tuple(simulator.tensor_crc32(name) for name in tensors))
    yield from _predictions(simulator, task, "after")


def _predictions(simulator: SimulatedDevice, task: Task, phase: Phase) -> Iterator[Event]:
    for index, sample in enumerate(task.query_x):
        yield QueryDone(phase, index, simulator.predict(sample))
