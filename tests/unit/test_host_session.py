"""Adaptation over the link: the exact stream, whatever the device does in between, or a clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from pmeta.codegen.errors import DeviceError, LinkError
from pmeta.host.events import Event, QueryDone, Resumed, SampleDone, SampleKept, StepDone
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.session import MAX_RESUMES, Adaptation
from tests.link_support.events import numbers_of
from tests.link_support.fake_device import FakeDevice
from tests.link_support.fake_library import FakeLibrary, expected_results, fake_manifest, fake_task
from tests.link_support.transports import MemoryTransport

pytestmark = pytest.mark.unit

QUICK = Timeouts(answer=0.02, compute=0.05, reopen=0.0, attempts=3)


class Board:
    """A device that can be restarted, or greeted by another host, between two requests."""

    def __init__(self, capacity: int = 0) -> None:
        self._capacity = capacity
        self.restart()
        self.device = Device(Client(lambda: self, "test port", QUICK))
        self.before_request: Callable[[int], None] = lambda _: None
        self._requests = 0

    def restart(self) -> None:
        self.inner = MemoryTransport(FakeDevice(FakeLibrary(capacity=self._capacity)))

    def greet(self) -> None:
        """Another host says HELLO and leaves."""
        Client(lambda: self.inner, "other host", QUICK).start_session()
        self.inner.read(0)

    def read(self, timeout: float) -> bytes:
        return self.inner.read(timeout)

    def write(self, data: bytes) -> None:
        self._requests += 1
        self.before_request(self._requests)
        self.inner.write(data)

    def close(self) -> None:
        pass


def requests_of_a_whole_run() -> int:
    board = Board()
    list(Adaptation(board.device, fake_manifest(), fake_task()).events())
    return board._requests


def test_the_stream_is_complete_and_exact() -> None:
    task = fake_task(shots=2, queries=3)
    events = list(Adaptation(Board().device, fake_manifest(), task).events())
    assert numbers_of(events) == expected_results(task).numbers
    kinds = [type(event) for event in events]
    assert kinds == [QueryDone] * 3 + ([SampleDone] * 10 + [StepDone]) * 3 + [QueryDone] * 3
    samples = [(event.step, event.index) for event in events if isinstance(event, SampleDone)]
    assert samples == [(step, index) for step in (1, 2, 3) for index in range(10)]


@pytest.mark.parametrize("what", ["restart", "greet"])
def test_whenever_the_device_forgets_the_session_the_results_are_the_same(what: str) -> None:
    """Before each request of the run in turn."""
    task = fake_task()
    expected = expected_results(task).numbers
    total = requests_of_a_whole_run()
    assert total > 80
    for moment in range(2, total + 1):
        board = Board()
        board.before_request = lambda number, board=board, moment=moment: (
            getattr(board, what)() if number == moment else None
        )
        events = list(Adaptation(board.device, fake_manifest(), task).events())
        assert numbers_of(events) == expected, moment
        assert sum(isinstance(event, Resumed) for event in events) == 1


def test_a_result_that_was_lost_for_good_is_computed_again() -> None:
    """The device executes a request, its reply is lost, and another host's HELLO makes it forget the reply."""
    task, total = fake_task(), requests_of_a_whole_run()
    for moment in range(2, total + 1):
        board = Board()

        def lose(number: int, board: Board = board, moment: int = moment) -> None:
            if number == moment + 1:  # the host repeats request `moment`, whose reply was swallowed
                board.greet()

        board.before_request = lose
        swallow_read(board, moment)
        events = list(Adaptation(board.device, fake_manifest(), task).events())
        assert numbers_of(events) == expected_results(task).numbers, moment


def swallow_read(board: Board, moment: int) -> None:
    """Loses what the device answers to request number `moment`."""
    write = board.write

    def losing_write(data: bytes) -> None:
        write(data)
        if board._requests == moment:
            board.inner.read(0)

    board.write = losing_write  # type: ignore[method-assign]


@pytest.mark.parametrize("moments", [(), (14, 60), (7, 30, 50)])
def test_a_kept_support_set_is_sent_once(moments: tuple[int, ...]) -> None:
    """The same numbers as of a streamed one; also where the device restarts, and forgets it."""
    board = Board(capacity=5)
    board.before_request = lambda number: board.restart() if number in moments else None
    events = list(Adaptation(board.device, fake_manifest(capacity=5), fake_task()).events())
    assert numbers_of(events) == expected_results(fake_task()).numbers
    assert [event.index for event in events if isinstance(event, SampleKept)] == list(range(5))
    assert sum(isinstance(event, Resumed) for event in events) == len(moments)
    if not moments:
        later_steps = (fake_manifest().steps - 1) * 5 * 3  # three chunks a sample
        assert requests_of_a_whole_run() - board._requests == later_steps - 5 - 1  # 5 SUPPORT_ADD, 1 SUPPORT_COUNT


def test_a_device_that_keeps_restarting_is_given_up() -> None:
    board = Board()
    board.before_request = lambda number: board.restart() if number % 7 == 0 else None
    events: list[Event] = []
    with pytest.raises(LinkError, match="lost the session 9 times"):
        consume(Adaptation(board.device, fake_manifest(), fake_task()).events(), events)
    assert sum(isinstance(event, Resumed) for event in events) <= MAX_RESUMES


def consume(stream: Iterable[Event], into: list[Event]) -> None:
    into.extend(stream)


def test_a_device_that_computes_differently_after_a_restart_is_an_error() -> None:
    class Moody(FakeLibrary):
        def reset(self) -> None:
            super().reset()
            self.weights ^= 1

    board = Board()

    def swap(number: int) -> None:
        if number == 40:
            board.inner = MemoryTransport(FakeDevice(Moody()))

    board.before_request = swap
    with pytest.raises(DeviceError, match="computes another result for step 1, sample 0 than before it restarted"):
        list(Adaptation(board.device, fake_manifest(), fake_task()).events())


def test_other_weights_after_a_restart_are_an_error_even_at_the_end() -> None:
    """The last update shows in no sample's result any more, only in the weights."""

    class Moody(FakeLibrary):
        def end_step(self, samples: int) -> None:
            super().end_step(samples)
            if self.step > self.steps:
                self.weights ^= 1

    board, last = Board(), requests_of_a_whole_run()

    def swap(number: int) -> None:
        if number == last:
            board.inner = MemoryTransport(FakeDevice(Moody()))

    board.before_request = swap
    with pytest.raises(DeviceError, match="computes other weights after step 3 than before it restarted"):
        list(Adaptation(board.device, fake_manifest(), fake_task()).events())


def test_another_models_firmware_is_refused_by_name() -> None:
    other = fake_manifest(bytes(range(1, 17)))
    with pytest.raises(DeviceError) as caught:
        list(Adaptation(Board().device, other, fake_task()).events())
    assert fake_manifest().firmware_id in str(caught.value)
    assert other.firmware_id in str(caught.value)


def test_more_logits_than_a_reply_holds_are_read_in_parts() -> None:
    library = FakeLibrary(ways=150)
    device = Device(Client(lambda: MemoryTransport(FakeDevice(library)), "test port", QUICK))
    device.hello()
    sample = bytes(range(250)) * 2 + bytes(200)
    reference = FakeLibrary(ways=150)
    assert device.predict(sample).tobytes() == reference.predict(sample).tobytes()
    result, expected = device.adapt(1, 0, sample, 149), reference.adapt(sample, 149)
    assert result.logits.tobytes() == expected.logits.tobytes()
    assert np.float32(result.loss).tobytes() == expected.loss.tobytes()


def test_a_device_that_talks_nonsense_is_a_device_error() -> None:
    class Nonsense(FakeDevice):
        def _dispatch(self, raw: bytes, command: int, payload: bytes) -> bytes:
            result = super()._dispatch(raw, command, payload)
            return result if command == 1 else b"x"

    for request in (
        lambda device: device.reset(1),
        lambda device: device.adapt(1, 0, bytes(700), 0),
        lambda device: device.predict(bytes(700)),
        lambda device: device.tensor_bytes(0, 12),
        lambda device: device.tensor_crc32(0),
    ):
        device = Device(Client(lambda: MemoryTransport(Nonsense(FakeLibrary())), "test port", QUICK))
        device.hello()
        with pytest.raises(DeviceError, match="make no sense"):
            request(device)
