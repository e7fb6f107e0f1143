"""What fake_model.c computes, once more in Python; and the same as a simulator for `pmeta.host.verify`."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.manifest import LearnedTensor, Manifest
from pmeta.codegen.numerics import HELIUM
from pmeta.codegen.targets import Target, target_bytes, target_problem, targets_of
from pmeta.codegen.taskfile import Task
from pmeta.host.link.device import SampleResult
from pmeta.host.link.frames import Status

SHAPE = (1, 28, 25)
SAMPLE_BYTES = 700  # three chunks
STEPS = 3
FIRMWARE_ID = bytes(range(16))
TENSORS = (LearnedTensor("fc.bias", "fc", (3,), (1, 2, 3)), LearnedTensor("fc.weight", "fc", (3, 100), (1, 2, 3)))


class LibraryError(Exception):
    """A call that the library refuses."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class FakeLibrary:
    """The calls of pmeta_model.h."""

    def __init__(self, ways: int = 5, regression: bool = False, capacity: int = 0) -> None:
        self.ways = ways
        self.regression = regression
        self.capacity = capacity
        self.steps = STEPS
        self.sample_bytes = SAMPLE_BYTES
        self.tensors = len(TENSORS)
        self.numerics = HELIUM
        self.reset()

    def reset(self) -> None:
        self.weights = 0x12345678
        self.first_gradient = 0
        self.step = 1
        self.restart_step()

    def restart_step(self) -> None:
        self.gradient = 0
        self.samples = 0

    def predict(self, sample: bytes) -> npt.NDArray[np.float32]:
        crc = zlib.crc32(sample, self.weights)
        numbers = [(crc ^ (i * 2654435761 % (1 << 32))) >> 8 for i in range(self.ways)]
        return np.array(numbers, np.float32)

    def check(self, target: Target) -> None:
        if target_problem(target, "mean_squared_error" if self.regression else "softmax_cross_entropy", self.ways):
            raise LibraryError(Status.TARGET)

    def adapt(self, sample: bytes, target: Target) -> SampleResult:
        self.check(target)
        if self.step > self.steps:
            raise LibraryError(Status.FINISHED)
        taught = zlib.crc32(target_bytes(target))
        loss = np.float32((zlib.crc32(sample, self.weights) & 0xFFFF) + (taught & 0xFF))
        self.gradient = zlib.crc32(target_bytes(target), zlib.crc32(sample, self.gradient))
        self.samples += 1
        return SampleResult(self.predict(sample), loss)

    def end_step(self, samples: int) -> None:
        if self.step > self.steps:
            raise LibraryError(Status.FINISHED)
        if samples != self.samples or samples == 0:
            raise LibraryError(Status.COUNT)
        if self.step == 1:
            self.first_gradient = self.gradient
        if self.gradient != self.first_gradient:
            self.restart_step()
            raise LibraryError(Status.SUPPORT)
        self.weights = zlib.crc32(self.gradient.to_bytes(4, "little"), self.weights)
        self.step += 1
        self.restart_step()

    def tensor(self, number: int) -> bytes:
        if number >= self.tensors:
            raise LibraryError(Status.TENSOR)
        count = TENSORS[number].bytes // 4
        elements = [(self.weights >> (number + i) % 16 & 0xFFFF) + i for i in range(count)]
        return np.array(elements, "<f4").tobytes()


class FakeSimulator:
    """FakeLibrary with the simulator's calls; `spoil` changes one element of one tensor after one step."""

    def __init__(self, spoil: tuple[int, str, int] | None = None, regression: bool = False) -> None:
        self._library = FakeLibrary(regression=regression)
        self._spoil = spoil

    def reset(self) -> None:
        self._library.reset()

    def adapt_sample(self, sample: npt.NDArray[Any], target: Target) -> SampleResult:
        return self._library.adapt(sample.tobytes(), target)

    def end_step(self, samples: int) -> tuple[str, ...]:
        self._library.end_step(samples)
        return tuple(tensor.name for tensor in TENSORS)

    def predict(self, sample: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self._library.predict(sample.tobytes())

    def tensor_bytes(self, name: str) -> bytes:
        number = next(number for number, tensor in enumerate(TENSORS) if tensor.name == name)
        values = np.frombuffer(self._library.tensor(number), "<f4").copy()
        if self._spoil is not None and self._spoil[:2] == (self._library.step - 1, name):
            values[self._spoil[2]] += np.float32(1)
        return values.tobytes()

    def tensor_crc32(self, name: str) -> int:
        return zlib.crc32(self.tensor_bytes(name))


def fake_manifest(firmware_id: bytes = FIRMWARE_ID, regression: bool = False, capacity: int = 0) -> Manifest:
    """The manifest of a project whose library is the fake one."""
    return Manifest(
        firmware_id=firmware_id.hex(),
        model_sha256="0" * 64,
        command="pmeta-gen",
        numerics=(HELIUM,),
        input_shape=SHAPE,
        sample_bytes=SAMPLE_BYTES,
        ways=5,
        steps=STEPS,
        boards=("native",),
        tensors=TENSORS,
        statics=(),
        loss="mean_squared_error" if regression else "softmax_cross_entropy",
        support="ram" if capacity else "stream",
        support_samples=capacity,
    )


def fake_task(seed: int = 0, shots: int = 1, queries: int = 2, regression: bool = False) -> Task:
    rng = np.random.default_rng(seed)
    labels = np.arange(5 * shots, dtype=np.uint8) % 5

    def samples(count: int) -> npt.NDArray[np.uint8]:
        values = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        return np.where(rng.random(values.shape) < 0.3, np.uint8(0), values)  # zeros are what COBS is about

    support, query = samples(5 * shots), samples(queries)
    targets = rng.normal(size=(5 * shots, 5)).astype(np.float32) if regression else labels
    return Task(support, targets, query, targets[:queries], tuple("abcde"), f"fake {seed}")


@dataclass(frozen=True)
class Expected:
    """Every number of one task's adaptation, in the order of the events."""

    numbers: tuple[bytes | tuple[int, ...], ...]


def expected_results(task: Task) -> Expected:
    """Computed without the host code under test."""
    library = FakeLibrary(regression=task.regression)
    queries = [sample.tobytes() for sample in task.query_x]
    numbers: list[bytes | tuple[int, ...]] = [library.predict(query).tobytes() for query in queries]
    for _ in range(STEPS):
        for sample, target in zip(task.support_x, targets_of(task.support_y), strict=True):
            result = library.adapt(sample.tobytes(), target)
            numbers.append(result.logits.tobytes() + result.loss.tobytes())
        library.end_step(len(task.support_x))
        numbers.append(tuple(zlib.crc32(library.tensor(number)) for number in range(len(TENSORS))))
    numbers += [library.predict(query).tobytes() for query in queries]
    return Expected(tuple(numbers))
