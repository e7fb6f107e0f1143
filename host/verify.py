"""Device beside simulator, compared by bits after every sample, step and query; the first difference ends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmeta.codegen.manifest import LearnedTensor, Manifest
from pmeta.codegen.taskfile import Task
from pmeta.host.events import Event, QueryDone, Resumed, SampleDone, SampleKept, StepDone
from pmeta.host.link.device import Device
from pmeta.host.session import Adaptation
from pmeta.host.simulation import SimulatedDevice, simulated_events
from pmeta.host.simulator.arithmetic import canonical_bytes


@dataclass(frozen=True)
class Difference:
    """The first place where device and simulator part."""

    place: str  # for example "step 2, sample 7" or "after step 2"
    what: str  # for example "logit 3" or "tensor conv4.weight (layer conv4), element (0, 2, 1, 1)"
    device: str  # the value and its bits
    simulator: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what} is {self.device} on the device, {self.simulator} in the simulator"


@dataclass(frozen=True)
class Checked:
    """One event of the device and what the comparison with the simulator's gave; None: equal to the bit."""

    event: Event
    difference: Difference | None


def verify(
    device: Device, manifest: Manifest, task: Task, simulator: SimulatedDevice, full: bool = False
) -> Iterator[Checked]:
    """Adapts `task` on both; stops at the first difference. full: compares all bytes of all tensors, not the CRC-32."""
    names = [tensor.name for tensor in manifest.tensors]
    output = "logit" if manifest.loss == "softmax_cross_entropy" else "output"
    expected_events = simulated_events(simulator, task, manifest.steps, names)
    for event in Adaptation(device, manifest, task).events():
        if isinstance(event, Resumed | SampleKept):
            yield Checked(event, None)
            continue
        difference = _compare(event, next(expected_events), names, output)
        if isinstance(event, StepDone) and (full or difference):
            difference = _compare_tensors(event.step, device, simulator, manifest.tensors) or difference
        yield Checked(event, difference)
        if difference:
            return


def _compare(event: Event, expected: Event, tensors: Sequence[str], output: str) -> Difference | None:
    """By bits, after canonicalizing NaNs. Both streams have the same order, so the places agree."""
    match event, expected:
        case QueryDone(), QueryDone():
            place = f"{event.phase} adaptation, query sample {event.index}"
            return _compare_values(place, output, event.logits, expected.logits)
        case SampleDone(), SampleDone():
            place = f"step {event.step}, sample {event.index}"
            losses = np.array([event.loss]), np.array([expected.loss])
            return _compare_values(place, output, event.logits, expected.logits) or _compare_values(
                place, "loss", *losses
            )
        case StepDone(), StepDone():
            for name, crc, expected_crc in zip(tensors, event.crcs, expected.crcs, strict=True):
                if crc != expected_crc:
                    values = f"0x{crc:08x}", f"0x{expected_crc:08x}"
                    return Difference(f"after step {event.step}", f"CRC-32 of tensor {name}", *values)
            return None
    raise AssertionError(f"the streams lost their common order: {event}, {expected}")


def _compare_values(
    place: str, what: str, device: npt.NDArray[np.float32], simulator: npt.NDArray[np.float32]
) -> Difference | None:
    index = _first_difference(device, simulator)
    if index is None:
        return None
    name = what if device.size == 1 else f"{what} {index}"
    return Difference(place, name, _describe(device[index]), _describe(simulator[index]))


def _compare_tensors(
    step: int, device: Device, simulator: SimulatedDevice, tensors: tuple[LearnedTensor, ...]
) -> Difference | None:
    """Reads the learned tensors off the device until one differs."""
    for number, tensor in enumerate(tensors):
        on_device = np.frombuffer(device.tensor_bytes(number, tensor.bytes), "<f4")
        simulated = np.frombuffer(simulator.tensor_bytes(tensor.name), "<f4")
        index = _first_difference(on_device, simulated)
        if index is not None:
            element = tuple(int(i) for i in np.unravel_index(index, tensor.shape))
            what = f"tensor {tensor.name} (layer {tensor.layer}), element {element}"
            values = _describe(on_device[index]), _describe(simulated[index])
            return Difference(f"after step {step}", what, *values)
    return None


def _first_difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> int | None:
    differs = np.flatnonzero(_canonical_bits(one) != _canonical_bits(other))
    return int(differs[0]) if differs.size else None


def _canonical_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return np.frombuffer(canonical_bytes(np.asarray(values, np.float32)), "<u4")


def _describe(value: np.float32) -> str:
    return f"{value:.9g} (0x{int(np.float32(value).view(np.uint32)):08x})"
