"""Frames of the link: pure functions between bytes on the wire and checked fields. docs/link.md is the reference.

On the wire: 0x00, the COBS encoding of header, payload and CRC-32, 0x00. The leading 0x00 ends whatever noise came
before, so that noise costs at most itself.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from cobs import cobs

VERSION = 1
REPLY = 0x80  # set in the command of every frame the device sends
_HEADER = struct.Struct("<BBBHI")  # version, command, status, sequence, session
_CRC = struct.Struct("<I")
FRAME_LIMIT = 253  # bytes of header, payload and CRC: the longest that COBS lengthens by one byte only
MAX_PAYLOAD = FRAME_LIMIT - _HEADER.size - _CRC.size


class Command(IntEnum):
    """What the host can ask."""

    HELLO = 0x01
    RESET = 0x02
    SAMPLE_CHUNK = 0x03
    ADAPT = 0x04
    END_STEP = 0x05
    RESTART_STEP = 0x06
    PREDICT = 0x07
    READ_LOGITS = 0x08
    TENSOR_CRC = 0x09
    READ_TENSOR = 0x0A
    TARGET_CHUNK = 0x0B
    SUPPORT_COUNT = 0x0C
    SUPPORT_ADAPT = 0x0D
    SUPPORT_ADD = 0x0E


class Status(IntEnum):
    """What the device answers; 1 to 7 come from pmeta_model, the others from the link."""

    OK = 0
    TARGET = 1
    FINISHED = 2
    COUNT = 3
    SUPPORT = 4
    TENSOR = 5
    STATE = 6
    CAPACITY = 7
    BUSY = 16
    BAD_CRC = 17
    BAD_LENGTH = 18
    BAD_VERSION = 19
    UNKNOWN_COMMAND = 20
    NO_SESSION = 21
    WRONG_SEQUENCE = 22
    WRONG_ORDER = 23
    BAD_SAMPLE = 24
    BAD_RANGE = 25


class BadFrame(ValueError):
    """Bytes that are no intact frame; says what is wrong with them."""


@dataclass(frozen=True)
class Frame:
    """One request or reply, without what only the wire needs."""

    command: int  # a Command, with REPLY set in replies
    session: int  # 32 bits; drawn by the host for every HELLO, never 0
    sequence: int  # 16 bits; counts the requests of a session
    payload: bytes = b""
    status: int = Status.OK  # 0 in requests
    version: int = VERSION

    def answers(self, request: Frame) -> bool:
        """Whether this is a reply to `request`."""
        identity = (request.command | REPLY, request.session, request.sequence)
        return (self.command, self.session, self.sequence) == identity


def encode_frame(frame: Frame) -> bytes:
    """The bytes on the wire, with the 0x00 at both ends; ValueError for a payload that is too long."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(frame.payload)} bytes, at most {MAX_PAYLOAD} fit")
    header = _HEADER.pack(frame.version, frame.command, frame.status, frame.sequence, frame.session)
    body = header + frame.payload
    encoded: bytes = cobs.encode(body + _CRC.pack(zlib.crc32(body)))
    return b"\0" + encoded + b"\0"


def decode_frame(encoded: bytes) -> Frame:
    """The frame between two 0x00; BadFrame if it is damaged in any way."""
    try:
        raw: bytes = cobs.decode(encoded)
    except cobs.DecodeError as error:
        raise BadFrame(str(error)) from error
    if not _HEADER.size + _CRC.size <= len(raw) <= FRAME_LIMIT:
        raise BadFrame(f"{len(raw)} bytes are not the length of a frame")
    body, crc = raw[: -_CRC.size], _CRC.unpack(raw[-_CRC.size :])[0]
    if zlib.crc32(body) != crc:
        raise BadFrame("the CRC-32 is wrong")
    version, command, status, sequence, session = _HEADER.unpack_from(body)
    return Frame(command, session, sequence, body[_HEADER.size :], status, version)


class FrameSplitter:
    """Cuts a stream of bytes at every 0x00; keeps at most one frame's bytes, however long the noise."""

    LIMIT = FRAME_LIMIT + 1  # with the COBS code byte

    def __init__(self) -> None:
        self._partial = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[bytes]:
        """The encoded frames that `data` completes, without their 0x00; what is empty or too long is dropped."""
        *complete, rest = data.split(b"\0")
        frames = []
        for part in complete:
            self._append(part)
            if self._partial and not self._too_long:
                frames.append(bytes(self._partial))
            self._partial.clear()
            self._too_long = False
        self._append(rest)
        return frames

    def _append(self, part: bytes) -> None:
        if len(self._partial) + len(part) > self.LIMIT:
            self._too_long = True
            self._partial.clear()
        else:
            self._partial += part
