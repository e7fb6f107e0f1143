"""Adaptation of one task on the device, over the link, as a stream of events.

The device may restart, or another host may greet it in between. Then the link reports `SessionLost`; this module asks
the device where it is and goes on from there, or resets it and sends again what it had already been sent. What was
emitted before is not emitted again, but compared: a device that computes something else the second time is an error.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pmeta.codegen.errors import DeviceError, LinkError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.targets import targets_of
from pmeta.codegen.taskfile import Task
from pmeta.host.events import Event, Phase, QueryDone, Resumed, SampleDone, SampleKept, StepDone
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import SessionLost

MAX_RESUMES = 8  # per task; a device that restarts more often will not finish


class Position(NamedTuple):
    """How far the device is; (K + 1, 0) is the end."""

    step: int
    samples: int


class Adaptation:
    """One task on one device. `events()` does the work while it is consumed; run it once."""

    def __init__(self, device: Device, manifest: Manifest, task: Task) -> None:
        self._device = device
        self._manifest = manifest
        self._support = [sample.tobytes() for sample in task.support_x]
        self._targets = targets_of(task.support_y)
        self._queries = [sample.tobytes() for sample in task.query_x]
        self._id = secrets.randbits(64) | 1  # never 0, which means "not reset since the start"
        self._position: Position | None = None  # None: not known, ask the device
        self._results: dict[Position, bytes] = {}  # of samples already emitted, by the position before them
        self._keeps = manifest.support != "stream"  # the support set is on the device
        self._kept = 0  # samples that the device keeps
        self._announced = 0  # of them, emitted as SampleKept
        self._tensors: list[tuple[int, ...]] = []  # CRC-32 of all tensors after each step emitted as StepDone
        self._verified = 0  # the last step whose tensors were read since the device was reset
        self._resumes = 0

    def events(self) -> Iterator[Event]:
        """The stream; raises LinkError or DeviceError where the device cannot go on."""
        last = self._manifest.steps + 1
        yield from self._predict(self._queries, "before", 1)
        yield from self._advance(last)
        yield from self._predict(self._queries, "after", last)

    def _predict(self, samples: Sequence[bytes], phase: Phase, step: int) -> Iterator[Event]:
        """Predictions with the weights at the beginning of `step`."""
        done = 0
        while done < len(samples):
            yield from self._advance(step)
            try:
                logits = self._device.predict(samples[done])
            except SessionLost as error:
                self._lost(error)
                continue
            yield QueryDone(phase, done, logits)
            done += 1

    def _advance(self, step: int) -> Iterator[Event]:
        """Brings the device to the beginning of `step`, from wherever it is."""
        while self._position != (step, 0) or self._verified < step - 1:
            try:
                event = self._next_operation()
            except SessionLost as error:
                self._lost(error)
                continue
            if event is not None:
                yield event

    def _next_operation(self) -> Event | None:
        """One operation on the device; the event it is worth, if that was not emitted before."""
        if self._position is None:
            return self._locate()
        step, samples = self._position
        if step - 1 > self._verified:
            return self._read_tensors(step - 1)
        if self._keeps and self._kept < len(self._support):
            return self._keep_sample(self._kept)
        if samples < len(self._support):
            return self._adapt_sample(self._position)
        self._device.end_step(step, samples)
        self._position = Position(step + 1, 0)
        return None

    def _read_tensors(self, step: int) -> Event | None:
        """After the end of `step`."""
        crcs = tuple(self._device.tensor_crc32(number) for number in range(len(self._manifest.tensors)))
        self._verified = step
        if step > len(self._tensors):
            self._tensors.append(crcs)
            return StepDone(step, crcs)
        if crcs != self._tensors[step - 1]:
            raise self._changed(f"other weights after step {step}")
        return None

    def _changed(self, what: str) -> DeviceError:
        todo = "check its power supply and memory"
        return DeviceError(f"computes {what} than before it restarted", self._device.where, todo)

    def _adapt_sample(self, position: Position) -> Event | None:
        step, index = position
        if self._keeps:
            result = self._device.support_adapt(step, index)
        else:
            result = self._device.adapt(step, index, self._support[index], self._targets[index])
        self._position = Position(step, index + 1)
        now = result.logits.tobytes() + result.loss.tobytes()
        before = self._results.get(position)
        if before is None:
            self._results[position] = now
            return SampleDone(step, index, result.logits, result.loss)
        if before != now:
            raise self._changed(f"another result for step {step}, sample {index}")
        return None

    def _keep_sample(self, index: int) -> Event | None:
        self._device.support_add(index, self._support[index], self._targets[index])
        self._kept = index + 1
        if self._kept <= self._announced:
            return None
        self._announced = self._kept
        return SampleKept(index)

    def _locate(self) -> Event | None:
        """Asks the device where it is; resets it unless it is where it can go on from."""
        hello = self._device.handshake(self._manifest)
        at = Position(hello.step, hello.samples)
        self._verified = min(len(self._tensors), at.step - 1)
        if hello.adaptation_id != self._id or at.step > len(self._tensors) + 2 or at.samples > len(self._support):
            self._device.reset(self._id)
            at, self._verified = Position(1, 0), 0
        elif at.samples and Position(at.step, at.samples - 1) not in self._results:
            self._device.restart_step(at.step)  # the last sample's result was lost: have the step computed again
            at = Position(at.step, 0)
        if self._keeps:
            self._kept = self._device.support_count()
        self._position = at
        return Resumed(at.step, at.samples) if self._resumes else None

    def _lost(self, error: SessionLost) -> None:
        self._position = None
        self._resumes += 1
        if self._resumes > MAX_RESUMES:
            raise LinkError(
                f"lost the session {self._resumes} times in one adaptation", error.where, "check its power and cable"
            ) from error
