"""The device's end of the link, read from docs/link.md a second time, in Python: bytes in, bytes out."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pmeta.codegen.numerics import VARIANTS, Numerics
from pmeta.codegen.targets import Target
from pmeta.host.link.device import SampleResult
from pmeta.host.link.frames import Status
from tests.link_support.fake_library import FIRMWARE_ID, LibraryError

VERSION, REPLY, MAX_PAYLOAD = 1, 0x80, 240
LENGTHS = {1: 0, 2: 8, 4: 16, 5: 8, 6: 4, 7: 4, 8: 4, 9: 4, 10: 12, 12: 0, 13: 8, 14: 12}  # payload bytes by command
OK, BUSY, BAD_CRC, BAD_LENGTH, BAD_VERSION, UNKNOWN = 0, 16, 17, 18, 19, 20
NO_SESSION, WRONG_SEQUENCE, WRONG_ORDER, BAD_SAMPLE, BAD_RANGE = 21, 22, 23, 24, 25


class Library(Protocol):
    """pmeta_model.h in Python; refusals raise LibraryError."""

    ways: int
    regression: bool
    capacity: int  # samples that it can keep; 0: they are streamed
    steps: int
    sample_bytes: int
    tensors: int
    numerics: Numerics
    step: int
    samples: int

    def reset(self) -> None: ...
    def restart_step(self) -> None: ...
    def predict(self, sample: bytes) -> npt.NDArray[np.float32]: ...
    def adapt(self, sample: bytes, target: Target) -> SampleResult: ...
    def check(self, target: Target) -> None: ...
    def end_step(self, samples: int) -> None: ...
    def tensor(self, number: int) -> bytes: ...


@dataclass
class Refusal(Exception):
    status: int


class FakeDevice:
    """`receive(data)` returns what the device sends in answer."""

    def __init__(self, library: Library, firmware_id: bytes = FIRMWARE_ID) -> None:
        self._library = library
        self._firmware_id = firmware_id
        self._partial = bytearray()
        self._session = self._sequence = self._adaptation_id = 0
        self._request_crc: int | None = None
        self._reply = b""
        self._sample = bytearray(library.sample_bytes)
        self._target = bytearray(4 * library.ways)  # where the library learns numbers
        self._kept: list[tuple[bytes, Target]] = []  # where the device keeps the support set
        self._logits = np.zeros(library.ways, np.float32)

    def receive(self, data: bytes) -> bytes:
        *complete, rest = (bytes(self._partial) + data).split(b"\0")
        self._partial = bytearray(rest)
        return b"".join(self._serve(part) for part in complete)

    def _serve(self, encoded: bytes) -> bytes:
        raw, complete = cobs_decode(encoded[:254])
        if len(encoded) < 14 or raw[1] & REPLY:
            return b""
        crc = zlib.crc32(raw[:-4])
        if len(encoded) > 254 or not complete or struct.pack("<I", crc) != raw[-4:]:
            return answer(raw, BAD_CRC)
        version, command, _, sequence, session = struct.unpack_from("<BBBHI", raw)
        if version != VERSION:
            return answer(raw, BAD_VERSION)
        if session == 0 or (session != self._session and command != 1):
            return answer(raw, NO_SESSION)
        if (session, sequence, crc) == (self._session, self._sequence, self._request_crc):
            return self._reply
        if command != 1 and sequence != (self._sequence + 1) % 0x10000:
            return answer(raw, WRONG_SEQUENCE)
        self._session, self._sequence, self._request_crc = session, sequence, crc
        return self._execute(raw, command, raw[9:-4])

    def _execute(self, raw: bytes, command: int, payload: bytes) -> bytes:
        """BUSY where the command computes, and the reply."""
        self._busy = b""
        try:
            if not (len(payload) > 4 if command in (3, 11) else len(payload) == LENGTHS.get(command, len(payload))):
                raise Refusal(BAD_LENGTH)
            result, status = self._dispatch(raw, command, payload), OK
        except Refusal as refusal:
            result, status = b"", refusal.status
        except LibraryError as error:
            result, status = b"", error.status
        self._reply = answer(raw, status, result)
        return self._busy + self._reply

    def _dispatch(self, raw: bytes, command: int, payload: bytes) -> bytes:
        library, words = self._library, struct.unpack(f"<{len(payload) // 4}I", payload[: len(payload) // 4 * 4])
        match command:
            case 1:
                sizes = (library.sample_bytes, library.ways, library.steps, library.tensors, MAX_PAYLOAD, 1234)
                at = (self._adaptation_id, library.step, library.samples)
                return self._firmware_id + struct.pack("<6IQ3I", *sizes, *at, VARIANTS.index(library.numerics))
            case 2:
                self._adaptation_id = struct.unpack("<Q", payload)[0]
                library.reset()
                self._kept.clear()
            case 3:
                fill(self._sample, words[0], payload[4:])
            case 11 if library.regression:
                fill(self._target, words[0], payload[4:])
            case 4:
                if words[:2] != (library.step, library.samples):
                    raise Refusal(WRONG_ORDER)
                sample, target = self._come(words[2], words[3])
                self._busy = answer(raw, BUSY)
                return self._adapted(library.adapt(sample, target))
            case 12 if library.capacity:
                return struct.pack("<I", len(self._kept))
            case 13 if library.capacity:
                if words != (library.step, library.samples):
                    raise Refusal(WRONG_ORDER)
                self._busy = answer(raw, BUSY)
                if library.samples >= len(self._kept):
                    raise LibraryError(Status.COUNT)
                return self._adapted(library.adapt(*self._kept[library.samples]))
            case 14 if library.capacity:
                if words[0] != len(self._kept):
                    raise Refusal(WRONG_ORDER)
                sample, target = self._come(words[1], words[2])
                if len(self._kept) == library.capacity:
                    raise LibraryError(Status.CAPACITY)
                library.check(target)
                self._kept.append((sample, target))
            case 5 | 6 if words[0] != library.step:
                raise Refusal(WRONG_ORDER)
            case 5:
                self._busy = answer(raw, BUSY)
                library.end_step(words[1])
            case 6:
                library.restart_step()
            case 7:
                if zlib.crc32(self._sample) != words[0]:
                    raise Refusal(BAD_SAMPLE)
                self._busy = answer(raw, BUSY)
                self._logits = library.predict(bytes(self._sample))
                return self._some_logits(0)
            case 8:
                if words[0] >= library.ways:
                    raise Refusal(BAD_RANGE)
                return self._some_logits(words[0])
            case 9:
                return struct.pack("<I", zlib.crc32(library.tensor(words[0])))
            case 10:
                if words[2] > MAX_PAYLOAD:
                    raise Refusal(BAD_RANGE)
                data = library.tensor(words[0])
                if words[1] + words[2] > len(data):
                    raise LibraryError(Status.TENSOR)
                return data[words[1] : words[1] + words[2]]
            case _:
                raise Refusal(UNKNOWN)
        return b""

    def _come(self, target_word: int, sample_crc: int) -> tuple[bytes, Target]:
        """The sample and what it teaches, as they have come in chunks or in the word."""
        if zlib.crc32(self._sample) != sample_crc:
            raise Refusal(BAD_SAMPLE)
        if not self._library.regression:
            return bytes(self._sample), target_word
        if zlib.crc32(self._target) != target_word:
            raise Refusal(BAD_SAMPLE)
        return bytes(self._sample), np.frombuffer(self._target, "<f4").copy()

    def _adapted(self, result: SampleResult) -> bytes:
        self._logits = result.logits
        return result.loss.tobytes() + self._some_logits(0)

    def _some_logits(self, first: int) -> bytes:
        return self._logits[first : first + (MAX_PAYLOAD - 4) // 4].tobytes()


def fill(buffer: bytearray, offset: int, part: bytes) -> None:
    """A chunk; Refusal where it reaches beyond the buffer."""
    if offset + len(part) > len(buffer):
        raise Refusal(BAD_RANGE)
    buffer[offset : offset + len(part)] = part


def answer(request: bytes, status: int, payload: bytes = b"") -> bytes:
    """The frame on the wire that answers a request (decoded, at least its header)."""
    body = bytes([VERSION, request[1] | REPLY, status]) + request[3:9] + payload
    return b"\0" + cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def cobs_encode(raw: bytes) -> bytes:
    """For less than 254 bytes."""
    return b"".join(bytes([len(run) + 1]) + run for run in raw.split(b"\0"))


def cobs_decode(encoded: bytes) -> tuple[bytes, bool]:
    """What can be decoded, and whether that is a whole frame."""
    raw, at = bytearray(encoded), 0
    while at < len(encoded) and at + raw[at] <= len(encoded):
        step, raw[at] = raw[at], 0
        at += step
    return bytes(raw[1:]), at == len(encoded)
