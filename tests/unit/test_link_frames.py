"""Frames: what goes in comes out, damage never passes, and the documentation's example is what the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmeta.host.link.frames import (
    MAX_PAYLOAD,
    BadFrame,
    Command,
    Frame,
    FrameSplitter,
    Status,
    decode_frame,
    encode_frame,
)
from tests.link_support.fake_device import answer, cobs_decode

pytestmark = pytest.mark.unit

LINK_PAGE = Path(__file__).resolve().parents[2] / "docs" / "link.md"

frames = st.builds(
    Frame,
    command=st.integers(0, 255),
    session=st.integers(0, 0xFFFFFFFF),
    sequence=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=MAX_PAYLOAD) | st.integers(0, MAX_PAYLOAD).map(bytes),
    status=st.integers(0, 255),
    version=st.integers(0, 255),
)


@given(frames)
def test_round_trip(frame: Frame) -> None:
    wire = encode_frame(frame)
    assert wire[0] == wire[-1] == 0
    assert 0 not in wire[1:-1]
    assert decode_frame(wire[1:-1]) == frame


@settings(max_examples=20)
@given(frames, st.integers(0, 400))
def test_every_flipped_bit_and_every_cut_is_noticed(frame: Frame, at: int) -> None:
    encoded = encode_frame(frame)[1:-1]
    for position in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[position] ^= 1 << bit
            with pytest.raises(BadFrame):
                decode_frame(bytes(damaged))
    with pytest.raises(BadFrame):
        decode_frame(encoded[: at % len(encoded)])


@given(st.binary(max_size=400))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_frame(noise)


def test_payload_has_a_limit() -> None:
    encode_frame(Frame(Command.HELLO, 1, 1, bytes(MAX_PAYLOAD)))
    with pytest.raises(ValueError, match="at most 240"):
        encode_frame(Frame(Command.HELLO, 1, 1, bytes(MAX_PAYLOAD + 1)))


@given(st.lists(frames, max_size=5), st.lists(st.integers(1, 50), min_size=1), st.binary(max_size=300))
def test_splitter_finds_frames_however_they_arrive(sent: list[Frame], cuts: list[int], noise: bytes) -> None:
    stream = noise + b"".join(encode_frame(frame) for frame in sent)
    splitter, found, at, turn = FrameSplitter(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += splitter.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert [decode_frame(encoded) for encoded in found[len(found) - len(sent) :]] == sent


def test_splitter_forgets_endless_noise() -> None:
    splitter = FrameSplitter()
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert len(splitter._partial) <= FrameSplitter.LIMIT
    frame = Frame(Command.HELLO, 1, 2)
    assert [decode_frame(part) for part in splitter.feed(encode_frame(frame))] == [frame]


def test_answer_belongs_to_one_request_only() -> None:
    request = Frame(Command.RESET, 7, 9)
    reply = Frame(Command.RESET | 0x80, 7, 9, b"", Status.OK)
    assert reply.answers(request)
    others = (Frame(Command.ADAPT | 0x80, 7, 9), Frame(Command.RESET | 0x80, 8, 9), Frame(Command.RESET | 0x80, 7, 8))
    assert not any(other.answers(request) for other in others)
    assert not request.answers(request)  # an echo is no answer


def test_the_page_shows_what_the_code_does() -> None:
    """The hex example of docs/link.md, both directions."""
    blocks = re.findall(r"```hex\n(.*?)```", LINK_PAGE.read_text(encoding="utf-8"), re.S)
    request_wire, reply_wire = (
        bytes.fromhex("".join(line.split("  ")[0] for line in block.splitlines())) for block in blocks
    )
    request = Frame(Command.END_STEP, session=0x12345678, sequence=0x0102, payload=bytes([2, 0, 0, 0, 5, 0, 0, 0]))
    assert request_wire == encode_frame(request)
    raw, complete = cobs_decode(request_wire[1:-1])
    assert complete
    assert reply_wire == answer(raw, Status.WRONG_ORDER)
    assert decode_frame(reply_wire[1:-1]).answers(request)


def test_the_page_lists_every_command_and_status() -> None:
    page = LINK_PAGE.read_text(encoding="utf-8")
    for command in Command:
        assert f"| {command.value:#04x} | {command.name} |" in page
    for status in Status:
        assert f"| {status.value} | {status.name} |" in page
