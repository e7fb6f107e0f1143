"""Boards end to end with a firmware of a few lines: built by PlatformIO, run on the native and the emulated boards."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import serial

from pmeta.codegen.boards import BOARDS, MPS3_AN547, MPS3_AN547_HELIUM, NETDUINOPLUS2, Board
from pmeta.codegen.manifest import Manifest, StaticObject
from pmeta.codegen.project.platformio import STACK_BYTES, platformio_files
from pmeta.codegen.project.ram import linked_ram
from pmeta.codegen.project.resources import firmware_templates
from tests.boards import EMULATED, parameters

emulated = pytest.mark.emulated
both_boards = pytest.mark.parametrize("board", ["native", pytest.param("netduinoplus2", marks=emulated)])
every_board = pytest.mark.parametrize("board", ["native", *parameters(EMULATED)])

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0  # for anything that takes a second on a quiet machine
ARENA_BYTES = 1000
MODEL_BYTES = ARENA_BYTES + 8  # with `gain`, which has an initial value

MODEL_H = """
#include <stdint.h>
float model_root(float x);
void model_clear(void);
"""
MODEL_C = f"""
#include "pmeta_model.h"
#include <string.h>
static float arena[{ARENA_BYTES // 4}];
static volatile uint64_t gain = 1;
float model_root(float x)
{{
    arena[1] = (float)(uint32_t)gain;
    return arena[1] * __builtin_sqrtf(x);
}}
void model_clear(void)
{{
    memset(arena, 0, sizeof arena);
}}
"""
# One letter and its operand each; what is no letter is ignored, as everything before the serial port is on may be.
MAIN_C = """
#include <string.h>
#include "board.h"
#include "pmeta_model.h"

static uint8_t receive_byte(void)
{
    return (uint8_t)board_receive();
}

static void receive(uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        bytes[i] = receive_byte();
    }
}

static uint8_t dig(uint32_t frames)
{
    volatile uint8_t frame[64];
    frame[0] = (uint8_t)frames;
    return frames == 0u ? frame[0] : (uint8_t)(dig(frames - 1u) + frame[0]);
}

int main(void)
{
    uint8_t bytes[255];
    board_init();
    model_clear();
    for (;;) {
        const int32_t letter = board_receive();
        if (letter < 0) {
            return 0;
        } else if (letter == 'e') { /* echo */
            const uint8_t count = receive_byte();
            receive(bytes, count);
            board_send(bytes, count);
        } else if (letter == 'r') { /* square root */
            float x;
            receive(bytes, 4u);
            memcpy(&x, bytes, 4u);
            x = model_root(x);
            memcpy(bytes, &x, 4u);
            board_send(bytes, 4u);
        } else if (letter == 'd') { /* so many frames deep into the stack */
            bytes[0] = dig(receive_byte());
            board_send(bytes, 1u);
        } else if (letter == 'o') { /* far too deep */
            bytes[0] = dig(1000000u);
            board_send(bytes, 1u);
        } else if (letter == 's') { /* stack used */
            const uint32_t used = board_stack_bytes_used();
            memcpy(bytes, &used, 4u);
            board_send(bytes, 4u);
        }
    }
}
"""
TEST_C = """
#include "board.h"
#include "pmeta_model.h"

static void say(const char *text)
{
    uint32_t count = 0;
    while (text[count] != '\\0') {
        count++;
    }
    board_send((const uint8_t *)text, count);
}

int main(void)
{
    board_init();
    (void)board_receive();
    say(model_root(4.0f) == 2.0f ? "PASS root of 4\\n" : "FAIL root of 4: not 2\\n");
    say(model_root(9.0f) == EXPECTED ? "PASS root of 9\\n" : "FAIL root of 9: not as expected\\n");
    say("DONE\\n");
    while (board_receive() >= 0) {
    }
    return 0;
}
"""


def manifest(model_bytes: int) -> str:
    statics = (StaticObject("arena", "model", model_bytes), StaticObject("stack", "stack", STACK_BYTES))
    numerics = tuple(board.numerics for board in BOARDS.values())
    return Manifest("0" * 32, "0" * 64, "", numerics, (1, 1, 1), 1, 2, 1, tuple(BOARDS), (), statics).to_json()


def write_project(folder: Path, expected: str = "3.0f") -> Path:
    files = platformio_files(list(BOARDS)) | {
        "src/board.h": (firmware_templates() / "link" / "board.h").read_text(encoding="utf-8"),
        "src/main.c": MAIN_C,
        "lib/pmeta_model/library.json": json.dumps({"name": "pmeta_model", "version": "1.0.0"}),
        "lib/pmeta_model/src/pmeta_model.h": MODEL_H,
        "lib/pmeta_model/src/pmeta_model.c": MODEL_C,
        "test/test_golden/test_main.c": TEST_C.replace("EXPECTED", expected),
        "manifest.json": manifest(MODEL_BYTES),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@dataclasses.dataclass(frozen=True)
class Firmware:
    """For an emulated board."""

    board: Board
    elf: Path

    @property
    def ram_used(self) -> int:
        return linked_ram(self.elf, self.board.ram_origin, self.board.ram_bytes)

    @property
    def ram_emulated(self) -> int:
        """QEMU's Netduino has 192 KB where the chip has 128."""
        return 192 * 1024 if self.board is NETDUINOPLUS2 else self.board.ram_bytes


@pytest.fixture(scope="session", params=parameters(EMULATED))
def firmware(platformio, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """Built for each emulated board."""
    folder = write_project(tmp_path_factory.mktemp("firmware"))
    built = platformio(folder, "run", "-e", request.param)
    assert built.returncode == 0, built.stdout
    total = MODEL_BYTES + STACK_BYTES
    assert f"RAM: predicted {total} B, linked {total} B: equal" in built.stdout
    assert "Stack: unbounded, recursion: dig calls dig (lib/pmeta_model: " in built.stdout
    return Firmware(BOARDS[request.param], folder / ".pio" / "build" / request.param / "program.elf")


class Talk:
    """The firmware above, over an open port."""

    def __init__(self, port) -> None:
        self.port = port

    def exactly(self, count: int) -> bytes:
        got = self.port.read(count)
        assert len(got) == count, f"{len(got)} of {count} bytes in {WAIT_SECONDS} s"
        return got

    def wait_until_up(self) -> None:
        """Asks for an echo until one comes whole: an emulated port drops what is sent before it is on."""
        self.port.timeout = 0.5
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self.port.write(b"\n\ne\x04ping")
            if self.port.read(4) == b"ping":
                break
        else:
            pytest.fail("the firmware does not answer")
        while self.port.read(64):  # answers to earlier pings
            pass
        self.port.timeout = WAIT_SECONDS

    def echo(self, data: bytes) -> bytes:
        self.port.write(b"e" + bytes([len(data)]) + data)
        return self.exactly(len(data))

    def root(self, x: np.float32) -> bytes:
        self.port.write(b"r" + x.tobytes())
        return self.exactly(4)

    def dig(self, frames: int) -> None:
        self.port.write(b"d" + bytes([frames]))
        self.exactly(1)

    def stack_used(self) -> int:
        self.port.write(b"s")
        return struct.unpack("<I", self.exactly(4))[0]


class Qmp:
    """QEMU's own control channel, to look into the emulated memory from outside."""

    def __init__(self, port: int) -> None:
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS).makefile("rw")
        self.stream.readline()
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> None:
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while "return" not in (answer := json.loads(self.stream.readline())):
            assert "error" not in answer, answer

    def memory(self, address: int, size: int, scratch: Path) -> bytes:
        self.call("pmemsave", val=address, size=size, filename=str(scratch))
        return scratch.read_bytes()


@dataclasses.dataclass(frozen=True)
class Emulator:
    process: subprocess.Popen[bytes]
    talk: Talk
    qmp: Qmp


PAINT = b"\xa5"
VISIBLE_TO_CORE = (MPS3_AN547, MPS3_AN547_HELIUM)  # only: QEMU cannot look into its tightly coupled memory from outside


@pytest.fixture
def emulator(firmware: Firmware, tmp_path: Path) -> Iterator[Emulator]:
    """The firmware in QEMU, all RAM that it has not been given painted before it starts (but on VISIBLE_TO_CORE)."""
    free = firmware.board.ram_origin + firmware.ram_used
    paint = tmp_path / "paint.bin"
    paint.write_bytes(PAINT * (firmware.ram_emulated - firmware.ram_used))
    with socket.create_server(("127.0.0.1", 0)) as link, socket.create_server(("127.0.0.1", 0)) as control:
        options = "server=on,wait=off,nodelay=on"
        command = [*firmware.board.qemu, "-kernel", str(firmware.elf), "-nographic", "-nodefaults"]
        if firmware.board not in VISIBLE_TO_CORE:
            command += ["-device", f"loader,file={paint},addr={free:#x},force-raw=on"]
        command += ["-chardev", f"socket,id=link,fd={link.fileno()},{options}", "-serial", "chardev:link"]
        command += ["-chardev", f"socket,id=qmp,fd={control.fileno()},{options}", "-mon", "chardev=qmp,mode=control"]
        # A core dump of a machine that locks up on purpose would only fill the disk.
        process = subprocess.Popen(
            ["sh", "-c", 'ulimit -c 0; exec "$@"', "sh", *command],
            pass_fds=(link.fileno(), control.fileno()),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        ports = [server.getsockname()[1] for server in (link, control)]
    try:
        with closing(serial.serial_for_url(f"socket://127.0.0.1:{ports[0]}", timeout=WAIT_SECONDS)) as port:
            talk = Talk(port)
            talk.wait_until_up()
            yield Emulator(process, talk, Qmp(ports[1]))
    finally:
        process.kill()
        process.communicate()


def test_echo_and_float_arithmetic(emulator: Emulator) -> None:
    """The startup code has enabled the floating-point unit and copied .data, and no byte is lost."""
    rng = random.Random(1)
    data = rng.randbytes(10_000)
    blocks = [data[start : start + 250] for start in range(0, len(data), 250)]
    assert b"".join(map(emulator.talk.echo, blocks)) == data
    for x in np.array([2.0, 1e-42, 3.4e38, 0.1, 0.0], dtype=np.float32):
        assert emulator.talk.root(x) == np.sqrt(x).tobytes()


def test_stack_paint_measures_depth(emulator: Emulator) -> None:
    before = emulator.talk.stack_used()
    assert 255 < before < 600  # main() holds 255 bytes
    emulator.talk.dig(6)
    after = emulator.talk.stack_used()
    assert after >= before + 6 * 64
    emulator.talk.dig(2)
    assert emulator.talk.stack_used() == after < STACK_BYTES


@pytest.mark.parametrize("firmware", parameters(b for b in EMULATED if b not in VISIBLE_TO_CORE), indirect=True)
def test_no_byte_outside_the_linked_ram_is_written(emulator: Emulator, firmware: Firmware, tmp_path: Path) -> None:
    emulator.talk.root(np.float32(2.0))
    emulator.talk.dig(6)
    used = firmware.ram_used
    memory = emulator.qmp.memory(firmware.board.ram_origin, firmware.ram_emulated, tmp_path / "ram.bin")
    assert memory[used:] == PAINT * (len(memory) - used)
    assert PAINT * 64 not in memory[:used]  # and the paint was laid where it should be


def test_stack_overflow_stops_the_core(emulator: Emulator, firmware: Firmware) -> None:
    """The stack lies at the bottom of RAM: growing too large it faults, before it can change any data."""
    emulator.talk.port.write(b"o")
    _, errors = emulator.process.communicate(timeout=WAIT_SECONDS)
    assert emulator.process.returncode != 0
    assert (b"Lockup" in errors) == firmware.board.core.startswith("Cortex-M")


@both_boards
def test_upload_replace_and_stop(board: str, platformio, tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    state = folder / ".pmeta" / f"{board}.json"
    records = []
    for _ in range(2):
        started = platformio(folder, "run", "-e", board, "-t", "upload")
        assert started.returncode == 0, started.stdout
        assert ": equal" in started.stdout
        records.append(json.loads(state.read_text(encoding="utf-8")))
        assert set(records[-1]) == {"port", "pid"}
    try:
        assert records[0]["pid"] != records[1]["pid"]
        assert not is_running(records[0]["pid"])
        for _ in range(2):  # hosts come and go
            with closing(serial.serial_for_url(records[1]["port"], timeout=WAIT_SECONDS)) as port:
                talk = Talk(port)
                talk.wait_until_up()
                assert talk.echo(bytes(range(200))) == bytes(range(200))
    finally:
        stopped = platformio(folder, "run", "-e", board, "-t", "stop")
    assert stopped.returncode == 0, stopped.stdout
    assert not is_running(records[1]["pid"])
    assert not state.exists()


@both_boards
def test_wrong_prediction_fails_the_build(board: str, platformio, tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    (folder / "manifest.json").write_text(manifest(MODEL_BYTES + 4), encoding="utf-8")
    built = platformio(folder, "run", "-e", board)
    assert built.returncode != 0
    assert "DIFFER by -4 B" in built.stdout


@emulated
def test_a_stack_that_may_not_suffice_fails_the_build(platformio, tmp_path: Path) -> None:
    """Until platformio.ini reserves more, which then counts as RAM."""
    folder = write_project(tmp_path)
    main, settings = folder / "src" / "main.c", folder / "platformio.ini"
    calm = main.read_text(encoding="utf-8").replace("dig(frames - 1u)", "0u")
    main.write_text(calm.replace("bytes[255]", f"bytes[{STACK_BYTES}]"), encoding="utf-8")
    built = platformio(folder, "run", "-e", "netduinoplus2")
    assert built.returncode != 0
    assert f"but only {STACK_BYTES} B reserved; set board_build.stack_bytes" in built.stdout
    assert "Deepest: board_start > main" in built.stdout

    text = settings.read_text(encoding="utf-8")
    more = f"board = netduinoplus2\nboard_build.stack_bytes = {2 * STACK_BYTES}"
    settings.write_text(text.replace("board = netduinoplus2", more), encoding="utf-8")
    built = platformio(folder, "run", "-e", "netduinoplus2")
    assert built.returncode == 0, built.stdout
    total = MODEL_BYTES + 2 * STACK_BYTES
    assert f"RAM: predicted {total} B, linked {total} B: equal" in built.stdout


@every_board
def test_golden_vectors_on_the_board(board: str, platformio, tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    run = platformio(folder, "test", "-e", board)
    assert run.returncode == 0, run.stdout
    assert "root of 4\t[PASSED]" in run.stdout
    assert "root of 9\t[PASSED]" in run.stdout
    assert not (folder / ".pmeta" / f"{board}.json").exists()


def test_wrong_golden_vector_fails_the_test(platformio, tmp_path: Path) -> None:
    run = platformio(write_project(tmp_path, expected="3.1f"), "test", "-e", "native")
    assert run.returncode != 0
    assert "root of 4\t[PASSED]" in run.stdout
    assert "root of 9: not as expected\t[FAILED]" in run.stdout


def test_forgotten_native_program_ends(platformio, tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    started = platformio(folder, "run", "-e", "native", "-t", "upload", PMETA_IDLE_SECONDS="1")
    assert started.returncode == 0, started.stdout
    wait_for(lambda: not (folder / ".pmeta" / "native.json").exists())


@emulated
def test_forgotten_emulator_ends(platformio, tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    started = platformio(folder, "run", "-e", "netduinoplus2", "-t", "upload", PMETA_EMULATOR_SECONDS="1.5")
    assert started.returncode == 0, started.stdout
    pid = json.loads((folder / ".pmeta" / "netduinoplus2.json").read_text(encoding="utf-8"))["pid"]
    wait_for(lambda: not is_running(pid))
    assert not (folder / ".pmeta" / "netduinoplus2.json").exists()


def compiled(source: Path, library: Path, *options: str) -> ctypes.CDLL:
    """A board's source as a library of this computer, its functions under names of their own: board_..."""
    compiler = next(path for name in ("cc", "gcc", "clang") if (path := shutil.which(name)))
    command = [compiler, "-std=c99", "-O2", "-ffreestanding", "-shared", "-fPIC", *options]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def test_square_root_without_an_fpu_is_rounded_to_nearest(tmp_path: Path) -> None:
    """Of floats of any kind, among them all exponents, subnormal numbers, and what borders on a power of two."""
    source = firmware_templates() / "boards" / "soft-float" / "sqrtf.c"
    root = compiled(source, tmp_path / "sqrt.so", "-Dsqrtf=board_sqrtf", "-fno-builtin").board_sqrtf
    root.argtypes, root.restype = [ctypes.c_float], ctypes.c_float
    borders = np.arange(0, 1 << 32, 1 << 23, dtype=np.uint32)[:, None] + np.arange(-3, 4, dtype=np.int64).astype(
        np.uint32
    )
    bits = np.concatenate([borders.ravel(), np.random.default_rng(3).integers(0, 1 << 32, 20_000, dtype=np.uint32)])
    x = bits.view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = np.sqrt(x)
    got = np.array([root(value) for value in x], np.float32)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert np.array_equal(got.view(np.uint32)[~np.isnan(got)], expected.view(np.uint32)[~np.isnan(expected)])


def test_memory_functions_do_as_the_library_s(tmp_path: Path) -> None:
    """memory.c on this computer, at every alignment, against the same operation on Python's bytes."""
    source = firmware_templates() / "boards" / "bare-metal" / "memory.c"
    renames = [f"-D{name}=board_{name}" for name in ("memcpy", "memmove", "memset", "memcmp")]
    code = compiled(source, tmp_path / "memory.so", f"-I{source.parent}", *renames)

    rng = random.Random(2)
    for _ in range(500):
        start = rng.randbytes(64)
        to, origin, count, value = rng.randrange(24), rng.randrange(24), rng.randrange(40), rng.randrange(256)
        block = (ctypes.c_char * 64).from_buffer_copy(start)
        other = (ctypes.c_char * 64).from_buffer_copy(start)
        expected = bytearray(start)
        expected[to : to + count] = start[origin : origin + count]

        code.board_memmove(ctypes.byref(block, to), ctypes.byref(block, origin), count)
        assert block.raw == expected
        code.board_memcpy(ctypes.byref(other, to), start[origin : origin + count], count)
        assert other.raw == expected
        expected[to : to + count] = bytes([value]) * count
        code.board_memset(ctypes.byref(block, to), value, count)
        assert block.raw == expected
        left, right = rng.randbytes(2), rng.randbytes(2)
        sign = code.board_memcmp(left, right, 2)
        assert (sign > 0) == (left > right)
        assert (sign < 0) == (left < right)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not collected yet has no arguments."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
