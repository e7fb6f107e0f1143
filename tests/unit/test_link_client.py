"""The client's core: when it repeats, when it gives up, and what it refuses to take for an answer."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pmeta.codegen.errors import DeviceError, LinkError
from pmeta.host.link.frames import REPLY, Command, Frame, Status, decode_frame, encode_frame
from pmeta.host.link.protocol import SENTENCES, Client, Refused, SessionLost, Timeouts, TransportLost

pytestmark = pytest.mark.unit

QUICK = Timeouts(answer=0.02, compute=0.05, reopen=0.0, attempts=4)


class Script:
    """A transport whose answers are written down: one function per frame written, the last one for all others."""

    def __init__(self, *answers: Callable[[Frame], bytes]) -> None:
        self.answers = list(answers)
        self.requests: list[Frame] = []
        self._arrived = b""
        self.opened = 0

    def connect(self) -> Script:
        self.opened += 1
        return self

    def read(self, timeout: float) -> bytes:
        data, self._arrived = self._arrived, b""
        if not data:
            time.sleep(timeout)
        return data

    def write(self, data: bytes) -> None:
        request = decode_frame(data.strip(b"\0"))
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self._arrived += answer(request)

    def close(self) -> None:
        self._arrived = b""


def reply(payload: bytes = b"", status: int = Status.OK, **changes: int) -> Callable[[Frame], bytes]:
    def answer(request: Frame) -> bytes:
        fields = {"session": request.session, "sequence": request.sequence, **changes}
        return encode_frame(Frame(request.command | REPLY, payload=payload, status=status, **fields))

    return answer


def nothing(_: Frame) -> bytes:
    return b""


def lost(_: Frame) -> bytes:
    raise TransportLost("unplugged")


def client(script: Script) -> Client:
    started = Client(script.connect, "test port", QUICK)
    started.start_session()
    script.requests.clear()
    return started


def test_a_silent_device_is_a_link_error_after_bounded_attempts() -> None:
    script = Script(nothing)
    with pytest.raises(LinkError, match=r"^test port: does not answer, HELLO was tried 4 times; check that"):
        Client(script.connect, "test port", QUICK).start_session()
    assert len(script.requests) == 4
    assert len(set(script.requests)) == 1  # repeated, not asked anew


def test_the_same_request_is_repeated_until_it_is_answered() -> None:
    script = Script(reply(), nothing, nothing, reply(b"result"))
    assert client(script).request(Command.TENSOR_CRC, b"1234") == b"result"
    assert len(script.requests) == 3
    assert len(set(script.requests)) == 1


@pytest.mark.timeout(30)
def test_a_device_that_is_busy_for_ever_is_given_up() -> None:
    """Saying BUSY again buys no more time: a sample may take `compute` seconds."""

    class Busy(Script):
        def read(self, timeout: float) -> bytes:
            time.sleep(0.005)
            return reply(status=Status.BUSY)(self.requests[-1]) if self.requests[-1].command != Command.HELLO else (
                super().read(timeout)
            )  # fmt: skip

    script = Busy(reply())
    started = time.monotonic()
    with pytest.raises(LinkError, match="does not answer, RESET was tried 4 times"):
        client(script).request(Command.RESET)
    assert time.monotonic() - started < 10


def test_a_damaged_request_is_repeated_at_once_and_counted() -> None:
    script = Script(reply(), reply(status=Status.BAD_CRC))
    with pytest.raises(LinkError, match="receives damaged frames only"):
        client(script).request(Command.RESET)
    assert len(script.requests) == 4


def test_the_answer_to_an_intact_copy_counts_although_another_copy_was_damaged() -> None:
    script = Script(reply(), lambda request: reply(status=Status.BAD_CRC)(request) + reply(b"result")(request))
    assert client(script).request(Command.RESET) == b"result"
    assert len(script.requests) == 1


def test_answers_to_others_are_ignored() -> None:
    def stale(request: Frame) -> bytes:
        others = (
            reply(b"another sequence", sequence=(request.sequence - 1) % 0x10000),
            reply(b"another session", session=request.session ^ 1),
        )
        damaged = bytearray(reply(b"damaged")(request))
        damaged[12] ^= 1
        echo = encode_frame(request)
        return b"noise" + b"".join(other(request) for other in others) + bytes(damaged) + echo + reply(b"ok")(request)

    assert client(Script(reply(), stale)).request(Command.READ_LOGITS, b"1234") == b"ok"


def test_busy_makes_the_host_wait_for_the_result() -> None:
    script = Script(reply(), lambda request: reply(status=Status.BUSY)(request) + reply(b"result")(request))
    assert client(script).request(Command.ADAPT) == b"result"
    assert len(script.requests) == 1


def test_after_busy_the_host_waits_as_long_as_a_computation_may_take() -> None:
    waits = []

    class Busy(Script):
        def read(self, timeout: float) -> bytes:
            if self.requests[-1].command != Command.ADAPT:
                return super().read(timeout)
            waits.append(timeout)
            return reply(status=Status.BUSY if len(waits) == 1 else Status.OK)(self.requests[-1])

    script = Busy(reply())
    started = Client(script.connect, "test port", Timeouts(answer=10.0, compute=1000.0))
    started.start_session()
    started.request(Command.ADAPT)
    assert 0 < waits[0] <= 10 and 900 < waits[1] <= 1000 and len(waits) == 2


def test_a_result_lost_after_busy_is_asked_for_again() -> None:
    script = Script(reply(), reply(status=Status.BUSY), reply(b"result"))
    assert client(script).request(Command.ADAPT) == b"result"
    assert len(script.requests) == 2


def test_a_lost_busy_does_not_end_a_long_computation() -> None:
    """The device says BUSY once; if that is lost, it is silent until it has the result."""

    class Silent(Script):
        result_at = 0.0

        def read(self, timeout: float) -> bytes:
            if self.requests[-1].command != Command.ADAPT:
                return super().read(timeout)
            self.result_at = self.result_at or time.monotonic() + (QUICK.attempts + 1) * QUICK.answer
            time.sleep(min(timeout, max(self.result_at - time.monotonic(), 0.0)))
            return reply(b"result")(self.requests[-1]) if time.monotonic() >= self.result_at else b""

    assert client(Silent(reply())).request(Command.ADAPT) == b"result"


def test_every_refusal_is_a_sentence() -> None:
    told = set(Status) - {Status.OK, Status.BUSY, Status.BAD_CRC, Status.NO_SESSION, Status.WRONG_SEQUENCE}
    assert set(SENTENCES) == told
    for status in (*told, 99):
        with pytest.raises(Refused, match=r"^test port: RESET was refused: .+; .+") as caught:
            client(Script(reply(), reply(status=status))).request(Command.RESET)
        assert caught.value.status == status
        assert isinstance(caught.value, DeviceError)


def test_another_protocol_version_is_named() -> None:
    def answer(request: Frame) -> bytes:
        return encode_frame(
            Frame(request.command | REPLY, request.session, request.sequence, b"", Status.BAD_VERSION, version=2)
        )

    with pytest.raises(DeviceError, match="speaks another version"):
        Client(Script(answer).connect, "test port", QUICK).start_session()


@pytest.mark.parametrize("status", [Status.NO_SESSION, Status.WRONG_SEQUENCE])
def test_a_lost_session_needs_a_new_hello(status: Status) -> None:
    script = Script(reply(), reply(status=status), reply(b"new"))
    started = client(script)
    with pytest.raises(SessionLost):
        started.request(Command.RESET)
    with pytest.raises(SessionLost):
        started.request(Command.RESET)
    assert len(script.requests) == 1  # nothing is sent in a lost session
    assert started.start_session() == b"new"


def test_sessions_differ_and_sequences_count() -> None:
    script = Script(reply())
    started = Client(script.connect, "test port", QUICK)
    for _ in range(50):
        started.start_session()
    assert len({request.session for request in script.requests}) == 50
    script.requests.clear()
    started._sequence = 0xFFFE
    for _ in range(3):
        started.request(Command.RESET)
    assert [request.sequence for request in script.requests] == [0xFFFF, 0, 1]


def test_a_lost_transport_is_opened_again_and_the_request_repeated() -> None:
    script = Script(reply(), lost, reply(b"result"))
    assert client(script).request(Command.RESET) == b"result"
    assert script.opened == 2
    assert len(set(script.requests)) == 1


def test_a_transport_that_stays_away_is_a_link_error() -> None:
    script = Script(reply(), lost)
    started = client(script)

    def refuse() -> Script:
        raise LinkError("is gone", "test port", "plug it in")

    started._connect = refuse
    with pytest.raises(LinkError, match=r"was lost .*RESET was tried 4 times"):
        started.request(Command.RESET)


def test_timeouts_must_make_sense() -> None:
    for wrong in ({"answer": 0.0}, {"compute": -1.0}, {"attempts": 0}, {"reopen": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            Timeouts(**wrong)
