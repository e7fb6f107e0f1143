"""verify names the first place where device and simulator part, and nothing where they do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pmeta.host.link.device import Device, SampleResult
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.verify import Checked, verify
from tests.link_support.events import numbers_of
from tests.link_support.fake_device import FakeDevice
from tests.link_support.fake_library import FakeLibrary, FakeSimulator, expected_results, fake_manifest, fake_task
from tests.link_support.transports import MemoryTransport

pytestmark = pytest.mark.unit


def device(library: FakeLibrary | None = None) -> Device:
    transport = MemoryTransport(FakeDevice(library or FakeLibrary()))
    return Device(Client(lambda: transport, "test port", Timeouts(answer=0.02, compute=0.05, attempts=3)))


def run(simulator: FakeSimulator, full: bool = False, library: FakeLibrary | None = None) -> list[Checked]:
    return list(verify(device(library), fake_manifest(), fake_task(), simulator, full))


@pytest.mark.parametrize("full", [False, True])
def test_equal_to_the_bit(full: bool) -> None:
    checked = run(FakeSimulator(), full)
    assert all(one.difference is None for one in checked)
    assert numbers_of(one.event for one in checked) == expected_results(fake_task()).numbers


def test_the_first_different_element_is_named() -> None:
    *equal, last = run(FakeSimulator(spoil=(2, "fc.weight", 207)))
    assert all(one.difference is None for one in equal)
    assert last.difference is not None
    assert last.difference.place == "after step 2"
    assert last.difference.what == "tensor fc.weight (layer fc), element (2, 7)"
    assert last.difference.device != last.difference.simulator


def test_a_wrong_crc_over_right_bytes_is_a_difference_too() -> None:
    class WrongCrc(FakeSimulator):
        def tensor_crc32(self, name: str) -> int:
            return super().tensor_crc32(name) ^ (name == "fc.weight")

    last = run(WrongCrc())[-1]
    assert last.difference is not None
    assert last.difference.what == "CRC-32 of tensor fc.weight"


def test_full_sees_what_the_crc_would_hide() -> None:
    class Collision(FakeSimulator):
        def tensor_crc32(self, name: str) -> int:
            return FakeSimulator.tensor_crc32(self.honest, name)

        honest = FakeSimulator()

        def reset(self) -> None:
            super().reset()
            self.honest.reset()

        def adapt_sample(self, sample: npt.NDArray[np.uint8], label: int) -> SampleResult:
            self.honest.adapt_sample(sample, label)
            return super().adapt_sample(sample, label)

        def end_step(self, samples: int) -> tuple[str, ...]:
            self.honest.end_step(samples)
            return super().end_step(samples)

    spoil = (1, "fc.bias", 2)
    assert all(one.difference is None for one in run(Collision(spoil)))
    last = run(Collision(spoil), full=True)[-1]
    assert last.difference is not None
    assert last.difference.what == "tensor fc.bias (layer fc), element (2,)"


class Changed(FakeLibrary):
    """Changes one result; `call` counts adapt and predict calls."""

    def __init__(self, call: int, logit: int | None) -> None:
        super().__init__()
        self._calls, self._call, self._logit = 0, call, logit

    def predict(self, sample: bytes) -> npt.NDArray[np.float32]:
        return self._changed(super().predict(sample))

    def adapt(self, sample: bytes, label: int) -> SampleResult:
        result = super().adapt(sample, label)
        if self._logit is None and self._calls == self._call:
            return SampleResult(result.logits, np.nextafter(result.loss, np.float32(np.inf)))
        return result

    def _changed(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self._calls += 1
        if self._logit is not None and self._calls == self._call:
            logits[self._logit] = np.nextafter(logits[self._logit], np.float32(np.inf))
        return logits


@pytest.mark.parametrize(
    ("call", "logit", "place", "what"),
    [
        (1, 0, "before adaptation, query sample 0", "logit 0"),
        (2 + 5 + 4, 3, "step 2, sample 3", "logit 3"),
        (2 + 10 + 5, None, "step 3, sample 4", "loss"),
        (2 + 15 + 2, 4, "after adaptation, query sample 1", "logit 4"),
    ],
)
def test_one_last_bit_of_one_result(call: int, logit: int | None, place: str, what: str) -> None:
    *equal, last = run(FakeSimulator(), library=Changed(call, logit))
    assert all(one.difference is None for one in equal)
    assert last.difference is not None
    assert (last.difference.place, last.difference.what) == (place, what)
    assert last.difference.device != last.difference.simulator


def test_all_nans_are_one() -> None:
    def nans(bits: int) -> npt.NDArray[np.float32]:
        return np.full(5, bits, np.uint32).view(np.float32)

    class NanSimulator(FakeSimulator):
        def predict(self, sample: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return nans(0xFFC12345)

    class NanLibrary(FakeLibrary):
        def predict(self, sample: bytes) -> npt.NDArray[np.float32]:
            return nans(0x7FC00000)

    first = run(NanSimulator(), library=NanLibrary())[0]
    assert first.difference is None
