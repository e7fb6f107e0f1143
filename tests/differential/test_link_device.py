"""The C end of the link against its Python reading, request for request, and against everything that goes wrong."""

from __future__ import annotations

import math
import random
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pmeta.codegen.errors import LinkError
from pmeta.codegen.project.link_size import link_state_bytes
from pmeta.codegen.targets import Target
from pmeta.host.events import Resumed
from pmeta.host.link.device import Device
from pmeta.host.link.frames import Command, Frame, FrameSplitter, Status, decode_frame, encode_frame
from pmeta.host.link.protocol import Client, SessionLost, Timeouts, Transport
from pmeta.host.session import Adaptation
from tests.link_support.build import TEMPLATES, WARNINGS, build_device, write_headers
from tests.link_support.events import numbers_of
from tests.link_support.fake_device import FakeDevice, cobs_encode
from tests.link_support.fake_library import (
    SAMPLE_BYTES,
    FakeLibrary,
    expected_results,
    fake_manifest,
    fake_task,
)
from tests.link_support.transports import DeviceProcess, Faults, FaultyTransport

pytestmark = pytest.mark.differential


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_device(tmp_path_factory.mktemp("link"))


@pytest.fixture
def device(program: Path) -> Iterator[DeviceProcess]:
    process = DeviceProcess(program)
    yield process
    process.stop()


def talk(program: Path, stream: bytes) -> bytes:
    """Everything a freshly started device answers to `stream`; fails on any complaint of the sanitizers."""
    done = subprocess.run([program], input=stream, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout


# --- Same bytes as the Python reading of docs/link.md


KEEPING = {Command.SUPPORT_COUNT, Command.SUPPORT_ADD, Command.SUPPORT_ADAPT}


class RandomHost:
    """Requests that are mostly sensible, so that they reach every state, and often wrong in one thing."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.library = FakeLibrary()  # follows along, to know what would be sensible
        self.session, self.sequence, self.last = 0, 0, b""
        self.sample = bytes(SAMPLE_BYTES)

    def next_bytes(self) -> bytes:
        kind = self.rng.random()
        if kind < 0.04:
            return self.last  # repeated
        if kind < 0.08:
            return self.rng.randbytes(self.rng.randint(0, 300)) + b"\0" * self.rng.randint(0, 2)
        if kind > 0.99:
            return self.whole_task()
        wire = encode_frame(self.request())
        self.last = wire
        if kind < 0.12:
            damaged = bytearray(wire)
            damaged[self.rng.randrange(len(wire))] ^= 1 << self.rng.randrange(8)
            return bytes(damaged)
        if kind < 0.14:
            return b"\0" + cobs_encode(self.rng.randbytes(240).replace(b"\0", b"")[:200]) * 2 + b"\0"
        return wire

    def whole_task(self) -> bytes:
        """All steps with one sample each, and one too many: a random host hardly ever gets that far."""
        self.session = self.rng.randrange(1, 1 << 32)
        crc = zlib.crc32(self.device_sample)
        requests = [(Command.HELLO, b""), (Command.RESET, self.rng.randbytes(8))]
        keeps = self.device_library.capacity > 0
        if keeps:
            requests += [(Command.SUPPORT_ADD, struct.pack("<3I", 0, self.target_word(), crc))]
        for step in range(1, 5):
            if step == 2 and self.rng.random() < 0.3:  # one sample too many: another support set than step 1's
                twice = [struct.pack("<4I", step, index, self.target_word(), crc) for index in range(2)]
                requests += [*((Command.ADAPT, payload) for payload in twice)]
                requests += [(Command.END_STEP, struct.pack("<2I", step, 2))]
            sent = (Command.ADAPT, struct.pack("<4I", step, 0, self.target_word(), crc))
            kept = (Command.SUPPORT_ADAPT, struct.pack("<2I", step, 0))
            requests += [kept if keeps and step % 2 == 0 else sent]
            requests += [(Command.END_STEP, struct.pack("<2I", step, 1))]
        wire = b""
        for command, payload in requests:
            self.sequence = (self.sequence + 1) % 0x10000
            wire += encode_frame(Frame(command, self.session, self.sequence, payload))
        return wire

    def request(self) -> Frame:
        command = self.rng.choice([*Command, Command.ADAPT, Command.ADAPT, Command.SAMPLE_CHUNK])
        payload = self.payload(command)
        if self.rng.random() < 0.05:
            payload = self.rng.choice([payload[:-1], payload + b"x", b"", self.rng.randbytes(240)])
        if command == Command.HELLO or self.rng.random() < 0.03:
            self.session = self.rng.choice([self.session, self.rng.randrange(1 << 32), 0])
        self.sequence = (self.sequence + 1) % 0x10000 if self.rng.random() < 0.97 else self.rng.randrange(0x10000)
        number = command if self.rng.random() < 0.98 else self.rng.randrange(256)
        version = 1 if self.rng.random() < 0.98 else self.rng.randrange(256)
        return Frame(number, self.session, self.sequence, payload, version=version)

    def payload(self, command: Command) -> bytes:
        def word(right: int, span: int = 4) -> int:
            return right if self.rng.random() < 0.9 else self.rng.choice([self.rng.randrange(span), 0xFFFFFFFF])

        library = self.device_library
        match command:
            case Command.RESET:
                return self.rng.randbytes(8)
            case Command.SAMPLE_CHUNK:
                offset = word(self.rng.randrange(SAMPLE_BYTES), SAMPLE_BYTES + 5)
                return struct.pack("<I", offset) + self.rng.randbytes(self.rng.randint(0, 236))
            case Command.ADAPT:
                crc = word(zlib.crc32(self.device_sample))
                named = word(self.target_word(), 9)
                return struct.pack("<4I", word(library.step), word(library.samples), named, crc)
            case Command.TARGET_CHUNK:
                offset = word(4 * self.rng.randrange(library.ways), 4 * library.ways + 5)
                numbers = [self.rng.gauss(0, 1) for _ in range(self.rng.randint(0, 9))]
                if self.rng.random() < 0.1:
                    numbers.append(math.inf)
                return struct.pack(f"<I{len(numbers)}f", offset, *numbers)
            case Command.SUPPORT_ADD:
                crc = word(zlib.crc32(self.device_sample))
                return struct.pack("<3I", word(len(self.device_kept)), word(self.target_word(), 9), crc)
            case Command.END_STEP | Command.SUPPORT_ADAPT:
                return struct.pack("<2I", word(library.step), word(library.samples))
            case Command.RESTART_STEP:
                return struct.pack("<I", word(library.step))
            case Command.PREDICT:
                return struct.pack("<I", word(zlib.crc32(self.device_sample)))
            case Command.READ_LOGITS | Command.TENSOR_CRC:
                return struct.pack("<I", word(1, 9))
            case Command.READ_TENSOR:
                return struct.pack("<3I", word(1), word(self.rng.randrange(1200)), word(self.rng.randrange(260)))
        return b""

    device_library: FakeLibrary
    device_sample: bytearray
    device_target: bytearray

    device_kept: list[tuple[bytes, Target]]

    def target_word(self) -> int:
        return zlib.crc32(self.device_target) if self.device_library.regression else 1


@pytest.mark.parametrize(
    ("ways", "regression", "capacity"),
    [(5, False, 0), (150, False, 0), (5, True, 0), (150, True, 0), (20, True, 7), (5, False, 2)],
)
def test_same_bytes_as_the_python_reading(tmp_path: Path, ways: int, regression: bool, capacity: int) -> None:
    """Several thousand requests; every command and status must have been met."""
    program = build_device(tmp_path, ways, regression, capacity)
    met: Counter[tuple[int, int]] = Counter()
    for seed in range(3):
        library = FakeLibrary(ways, regression, capacity)
        reading, host = FakeDevice(library), RandomHost(seed)
        host.device_library, host.device_sample, host.device_target = library, reading._sample, reading._target
        host.device_kept = reading._kept
        stream, expected = b"", b""
        for _ in range(2000):
            sent = host.next_bytes()
            stream += sent
            expected += reading.receive(sent)
        assert talk(program, stream) == expected
        for encoded in FrameSplitter().feed(expected):
            reply = decode_frame(encoded)
            met[reply.command & 0x7F, reply.status] += 1
    ok = {command for command, status in met if status == 0}
    missing = {Command.TARGET_CHUNK} if not regression else set()
    assert ok == set(Command) - missing - (KEEPING if not capacity else set())
    assert {status for _, status in met} >= {0, 1, 2, 3, 4, 5, *range(16, 26)}


def test_the_kept_reply_answers_the_same_request_only(program: Path) -> None:
    """Not another one under the same number: a host that confuses its numbers must hear of it."""

    def tensor_crc(tensor: int) -> bytes:
        return encode_frame(Frame(Command.TENSOR_CRC, 5, 7, struct.pack("<I", tensor)))

    stream = encode_frame(Frame(Command.HELLO, 5, 6)) + tensor_crc(0) + tensor_crc(1) + tensor_crc(0)
    stream += encode_frame(Frame(Command.HELLO, 5, 7))
    replies = [decode_frame(encoded) for encoded in FrameSplitter().feed(talk(program, stream))]
    assert [reply.status for reply in replies] == [Status.OK, Status.OK, Status.WRONG_SEQUENCE, Status.OK, Status.OK]
    assert replies[1] == replies[3]  # refusing has not replaced it
    assert len(replies[-1].payload) == 60  # HELLO's own


# --- Noise


def test_random_bytes_do_no_harm(program: Path) -> None:
    """A quarter of a megabyte of noise with many 0x00, then a request that must be answered."""
    rng = random.Random(7)
    noise = bytes(0 if rng.random() < 0.02 else byte for byte in rng.randbytes(1 << 18))
    hello = Frame(Command.HELLO, 5, 6)
    last = FrameSplitter().feed(talk(program, noise + encode_frame(hello)))[-1]
    assert decode_frame(last).answers(hello)


def test_every_damaged_request_is_refused_or_ignored(program: Path) -> None:
    """Each bit of a RESET flipped in turn, and each byte lost: none may be executed."""
    session = encode_frame(Frame(Command.HELLO, 5, 6))
    reset = encode_frame(Frame(Command.RESET, 5, 7, struct.pack("<Q", 0x1234)))
    damaged = []
    for position in range(1, len(reset) - 1):
        damaged.append(reset[:position] + reset[position + 1 :])
        damaged += [flip(reset, position, bit) for bit in range(8)]
    stream = session + b"".join(damaged) + encode_frame(Frame(Command.HELLO, 5, 8))
    replies = [decode_frame(encoded) for encoded in FrameSplitter().feed(talk(program, stream))]
    assert {reply.status for reply in replies[1:-1]} == {17}  # BAD_CRC
    assert replies[-1].payload[40:48] == bytes(8)  # no RESET has reached it
    intact = FrameSplitter().feed(talk(program, session + reset + encode_frame(Frame(Command.HELLO, 5, 8))))[-1]
    assert decode_frame(intact).payload[40:48] == struct.pack("<Q", 0x1234)


def flip(wire: bytes, position: int, bit: int) -> bytes:
    damaged = bytearray(wire)
    damaged[position] ^= 1 << bit
    return bytes(damaged)


# --- The real client over a line that goes wrong

TIMEOUTS = Timeouts(answer=0.25, compute=0.3, reopen=0.0, attempts=6)
TASKS = 3  # per line
LINES = {
    "flipped bits": {"flip": 0.03},
    "lost bytes": {"lose": 0.03},
    "repeated chunks": {"duplicate": 0.2},
    "late chunks": {"late": 0.02},
    "noise": {"noise": 0.2},
    "cuts": {"cut": 0.05},
    "device restarts": {"restart": 0.015},
    "everything": {
        "flip": 0.02,
        "lose": 0.02,
        "duplicate": 0.04,
        "late": 0.02,
        "noise": 0.04,
        "cut": 0.01,
        "restart": 0.01,
    },
    "hopeless": {"flip": 0.8, "lose": 0.6},
    "keeps restarting": {"restart": 0.2},
}


def adapt_over(device: DeviceProcess, faults: Faults, seed: int, regression: bool = False, capacity: int = 0) -> str:
    """One task over a faulty line: "right", "resumed" (and right) or "LinkError"; anything else fails the test.

    The device is right, so a DeviceError is the protocol's mistake, and SessionLost must never reach the user.
    """
    task = fake_task(seed, regression=regression)

    def connect() -> Transport:
        return FaultyTransport(device.connect(), faults, device)

    try:
        with Device(Client(connect, "faulty line", TIMEOUTS)) as client:
            events = list(Adaptation(client, fake_manifest(regression=regression, capacity=capacity), task).events())
    except SessionLost:
        raise
    except LinkError:
        return "LinkError"
    assert numbers_of(events) == expected_results(task).numbers
    return "resumed" if any(isinstance(event, Resumed) for event in events) else "right"


@pytest.mark.parametrize("line", LINES)
def test_right_or_a_clear_error(device: DeviceProcess, line: str) -> None:
    outcomes: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    for seed in range(TASKS):
        faults = Faults(f"{line} {seed}", **LINES[line])
        outcomes[adapt_over(device, faults, seed)] += 1
        happened += faults.done
        device.restart()
    print(line, dict(outcomes), dict(happened))
    assert all(happened[kind] for kind in LINES[line]), "a fault that never happened was not tested"
    if line in ("hopeless", "keeps restarting"):
        assert outcomes["LinkError"] == TASKS, "a line this bad cannot have worked"
    else:
        most = 1 if len(LINES[line]) > 1 else 0
        assert outcomes["LinkError"] <= most, "repeating and resuming should have mastered this"


def test_numbers_are_taught_right_over_a_bad_line(tmp_path: Path) -> None:
    device = DeviceProcess(build_device(tmp_path, regression=True))
    outcomes = Counter(
        adapt_over(device, Faults(f"numbers {seed}", flip=0.03, lose=0.02, restart=0.01), seed, regression=True)
        for seed in range(TASKS)
    )
    assert outcomes["LinkError"] == 0 and outcomes["resumed"] > 0
    device.stop()


@pytest.mark.parametrize("regression", [False, True])
def test_a_kept_support_set_survives_a_bad_line(tmp_path: Path, regression: bool) -> None:
    """And is sent again where the device forgot it."""
    device = DeviceProcess(build_device(tmp_path, regression=regression, capacity=5))
    outcomes = Counter(
        adapt_over(device, Faults(f"kept {seed}", flip=0.03, lose=0.02, restart=0.01), seed, regression, capacity=5)
        for seed in range(TASKS)
    )
    assert outcomes["LinkError"] == 0 and outcomes["resumed"] > 0
    device.stop()


# --- Size and warnings


@pytest.mark.parametrize(("sample_bytes", "ways"), [(784, 5), (700, 5), (1, 1), (21168, 20), (3, 2), (4096, 150)])
@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
@pytest.mark.parametrize("regression", [False, True])
def test_size_of_the_state_is_known_to_the_byte(
    tmp_path: Path, compiler: str, sample_bytes: int, ways: int, regression: bool
) -> None:
    write_headers(tmp_path, sample_bytes, ways, regression=regression)
    compile_link(compiler, tmp_path)
    with (tmp_path / "link.o").open("rb") as file:
        symbols = list(ELFFile(file).get_section_by_name(".symtab").iter_symbols())
    objects = {symbol.name: symbol["st_size"] for symbol in symbols if symbol["st_info"]["type"] == "STT_OBJECT"}
    in_ram = {name: size for name, size in objects.items() if "switch" not in name and size}
    assert in_ram == {"link_state": link_state_bytes(sample_bytes, ways, regression)}


@pytest.mark.parametrize("wrong", [-8, 8, 4])
def test_a_wrong_size_does_not_compile(tmp_path: Path, wrong: int) -> None:
    write_headers(tmp_path, state_bytes=link_state_bytes(SAMPLE_BYTES, 5) + wrong)
    with pytest.raises(subprocess.CalledProcessError):
        compile_link("gcc", tmp_path)


def compile_link(compiler: str, folder: Path) -> None:
    source = TEMPLATES / "link" / "link.c"
    options = ["-Os", "-ffp-contract=off", f"-I{folder}", f"-I{TEMPLATES / 'link'}", "-c", "-o", folder / "link.o"]
    if compiler == "arm-none-eabi-gcc":  # the board's own string.h, as in its builds: a C library is not needed
        options.append(f"-I{TEMPLATES / 'boards' / 'bare-metal'}")
    subprocess.run([compiler, *WARNINGS, *options, source], check=True)
