"""The client's core: one request at a time, repeated until its own answer comes or the attempts are used up.

It knows no serial port. A `Transport` moves bytes and may lose, change or repeat them; it says `TransportLost` when it
is gone, and is then opened again. Repeating is always safe: the device executes a request once and keeps its answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pmeta.codegen.errors import DeviceError, LinkError
from pmeta.host.link.frames import (
    VERSION,
    BadFrame,
    Command,
    Frame,
    FrameSplitter,
    Status,
    decode_frame,
    encode_frame,
)


class Transport(Protocol):
    """A stream of bytes in both directions. read and write raise TransportLost once it is gone."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, at least one byte; b"" if nothing does within `timeout` seconds."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class TransportLost(Exception):
    """The port vanished or the connection was closed; opening it again may help."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait, and how often to try. A request fails after `attempts` tries, not before."""

    answer: float = 1.0  # for BUSY or a reply: the device is idle, so only the line takes time
    compute: float = 60.0  # for the result after BUSY: one sample's forward and backward pass
    reopen: float = 1.0  # between tries to open a lost transport again
    attempts: int = 5

    def __post_init__(self) -> None:
        if min(self.answer, self.compute, self.attempts) <= 0 or self.reopen < 0:
            raise ValueError(f"time-outs and attempts must be positive: {self}")


class SessionLost(LinkError):
    """The device does not know this session: it restarted, or another HELLO came between. Say HELLO again."""

    def __init__(self, where: str) -> None:
        super().__init__("the device no longer knows this session (it restarted?)", where, "run again")


class Refused(DeviceError):
    """The device understood the request and refused it."""

    def __init__(self, status: int, request: Frame, where: str) -> None:
        sentence, todo = SENTENCES.get(status, (f"answered with the unknown code {status}", "update pmeta"))
        super().__init__(f"{Command(request.command).name} was refused: {sentence}", where, todo)
        self.status = status


SENTENCES: dict[int, tuple[str, str]] = {
    Status.TARGET: (
        "the label is not below the number of ways, or a target's number not finite",
        "check the task file",
    ),
    Status.FINISHED: ("all steps are done", "reset before adapting again"),
    Status.COUNT: ("the device has another number of samples than the host sent", "run again"),
    Status.SUPPORT: (
        "these samples or targets differ from step 1's",
        "send the same support set in the same order in every step",
    ),
    Status.TENSOR: ("there is no such tensor, or the range is outside it", "generate and upload the project again"),
    Status.STATE: ("the saved state is damaged or another firmware's", "save it again"),
    Status.CAPACITY: ("a buffer is too small", "generate and upload the project again"),
    Status.BAD_LENGTH: ("the request has a wrong length", "update pmeta, generate and upload again"),
    Status.BAD_VERSION: (
        "its firmware speaks another version of the link protocol",
        "generate and upload the project again with this pmeta",
    ),
    Status.UNKNOWN_COMMAND: ("it does not know this command", "generate and upload the project again with this pmeta"),
    Status.WRONG_ORDER: ("this is not the step or sample that comes next", "run again"),
    Status.BAD_SAMPLE: ("it holds another sample than the host sent", "run again; if it recurs, check the board's RAM"),
    Status.BAD_RANGE: ("the range is outside what it has", "generate and upload the project again"),
}


# What the device answers with BUSY first.
COMPUTING = (Command.ADAPT, Command.SUPPORT_ADAPT, Command.END_STEP, Command.PREDICT)


class Client:
    """Requests and their answers over a transport that may fail.

    `connect` opens the transport; it raises LinkError if the port is not there. `where` names the port in errors.
    """

    def __init__(self, connect: Callable[[], Transport], where: str, timeouts: Timeouts | None = None) -> None:
        self.where = where
        self.timeouts = timeouts or Timeouts()
        self._connect = connect
        self._transport: Transport | None = None
        self._splitter = FrameSplitter()
        self._session = 0
        self._sequence = 0
        self._open()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def start_session(self) -> bytes:
        """Says HELLO under a new session number and returns the reply's payload.

        A number the device has not seen keeps answers to an earlier host process, or to a request this one gave up,
        from being taken for answers to new requests.
        """
        self._session = secrets.randbelow(0xFFFFFFFF) + 1
        self._sequence = secrets.randbelow(0x10000)
        return self._exchange(Frame(Command.HELLO, self._session, self._sequence))

    def request(self, command: Command, payload: bytes = b"") -> bytes:
        """The reply's payload. Raises LinkError (no answer), Refused (an error code), SessionLost (say HELLO again)."""
        if not self._session:
            raise SessionLost(self.where)
        self._sequence = (self._sequence + 1) % 0x10000
        try:
            return self._exchange(Frame(command, self._session, self._sequence, payload))
        except LinkError:
            self._session = 0  # whether the device executed it is unknown: only HELLO can tell
            raise

    def _exchange(self, request: Frame) -> bytes:
        """Sends `request` until it is answered."""
        problem = "does not answer"
        for attempt in range(1, self.timeouts.attempts + 1):
            # Perhaps the device computes and its BUSY was lost: the last try waits as if it had come.
            patient = attempt == self.timeouts.attempts and request.command in COMPUTING
            try:
                self._write(encode_frame(request))
                reply = self._await_reply(request, patient)
            except TransportLost as error:
                problem = f"was lost ({error})"
                self._reopen()
                continue
            if reply is not None and reply.status != Status.BAD_CRC:
                return self._checked(request, reply)
            problem = "does not answer" if reply is None else "receives damaged frames only"
        todo = "check that the board is connected, powered and runs the generated firmware"
        tried = f"{Command(request.command).name} was tried {self.timeouts.attempts} times"
        raise LinkError(f"{problem}, {tried}", self.where, todo)

    def _await_reply(self, request: Frame, patient: bool) -> Frame | None:
        """The final answer to `request`, or BAD_CRC if a copy of it was damaged; None when time is up."""
        deadline = time.monotonic() + (self.timeouts.compute if patient else self.timeouts.answer)
        is_busy = patient
        while (left := deadline - time.monotonic()) > 0:
            damaged = None
            for reply in self._replies(request, left):
                if reply.status == Status.BUSY:
                    if is_busy:
                        continue  # a device that is busy for ever gets no more time by saying so
                    is_busy = True
                    deadline = time.monotonic() + self.timeouts.compute
                elif reply.status == Status.BAD_CRC:
                    damaged = reply  # unless another copy arrived, whose answer comes right behind
                else:
                    return reply
            if damaged is not None:
                return damaged
        return None

    def _replies(self, request: Frame, timeout: float) -> Iterator[Frame]:
        """The intact frames that have arrived and answer `request`; all others are ignored: the time-out repeats."""
        for encoded in self._splitter.feed(self._read(timeout)):
            try:
                reply = decode_frame(encoded)
            except BadFrame:
                continue
            if reply.answers(request):
                yield reply

    def _checked(self, request: Frame, reply: Frame) -> bytes:
        if reply.version != VERSION:
            raise Refused(Status.BAD_VERSION, request, self.where)
        if reply.status in (Status.NO_SESSION, Status.WRONG_SEQUENCE):
            raise SessionLost(self.where)
        if reply.status != Status.OK:
            raise Refused(reply.status, request, self.where)
        return reply.payload

    def _read(self, timeout: float) -> bytes:
        if self._transport is None:
            raise TransportLost("not open")
        return self._transport.read(timeout)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise TransportLost("not open")
        self._transport.write(data)

    def _open(self) -> None:
        self._splitter = FrameSplitter()
        self._transport = self._connect()

    def _reopen(self) -> None:
        """Opens the lost transport again if it is there; if not, the next attempt finds it closed and tries again."""
        self.close()
        time.sleep(self.timeouts.reopen)
        try:
            self._open()
        except LinkError:
            self._transport = None
