"""Starts and stops the program behind a board's port: QEMU with the firmware, or the native program itself.

    device.py start STATE PROGRAM [QEMU OPTION...]   replaces what runs; STATE then holds {"port": ..., "pid": ...}
    device.py stop STATE                             ends it, and removes STATE

The program runs in the background under a supervisor (this script again, `supervise`; the pid in STATE is its), which
ends it after PMETA_EMULATOR_SECONDS (3600): nothing forgotten keeps a core busy for ever. Its output goes to STATE's
name with .log. Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 20.0  # until the program has named its port, on a busy machine too
SETTLE_SECONDS = 0.3  # a firmware or command line that cannot run ends within this time
STOP_SECONDS = 5.0
LIFE_SECONDS = 3600.0
PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """The program cannot be started; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Start or stop the program behind a board's port")
    parser.add_argument("action", choices=("start", "stop", "supervise"))
    parser.add_argument("state", type=Path)
    parser.add_argument("program", type=Path, nargs="?")
    parser.add_argument("qemu", nargs=argparse.REMAINDER, help="the emulator and its options")
    options = parser.parse_args()
    if options.action == "stop":
        print("stopped" if stop(options.state) else "not running")
        return 0
    if options.program is None:
        parser.error("no program")
    try:
        if options.action == "supervise":
            return supervise(options.state, options.program, options.qemu)
        print(f"Listening on {start(options.state, options.program, options.qemu)}")
    except StartError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def start(state: Path, program: Path, qemu: list[str]) -> str:
    """Starts the supervisor, which outlives this call; returns the port."""
    stop(state)
    state.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "supervise", str(state), str(program), *qemu]
    log_path = state.with_suffix(".log")
    with log_path.open("wb") as log:
        supervisor = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = read_state(state)
        if record is not None and record["pid"] == supervisor.pid:
            return str(record["port"])
        if supervisor.poll() is not None:
            break
        time.sleep(0.02)
    else:
        supervisor.terminate()
    raise StartError(f"{program} did not start: {last_line(log_path).removeprefix('Error: ')}")


def stop(state: Path) -> bool:
    """Ends the supervisor that STATE names, and with it the program; returns whether there was one."""
    record = read_state(state)
    running = record is not None and is_supervisor(record["pid"])
    if record is not None and running:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            end(record["pid"], sign)
            if not is_supervisor(record["pid"]):
                break
    state.unlink(missing_ok=True)
    return running


def end(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + STOP_SECONDS
    while is_supervisor(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_supervisor(pid: int) -> bool:
    """Whether the process runs and is a supervisor: a number read from a file may long be another program's."""
    if Path("/proc/self").exists():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"supervise" in arguments  # a process that has ended but is still listed has no arguments
    command = ["ps", "-o", "args=", "-p", str(pid)]
    return " supervise " in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def supervise(state: Path, program: Path, qemu: list[str]) -> int:
    """Runs the program until it ends, its time is up, or this process is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    deadline = time.monotonic() + life_seconds()
    if qemu:
        child, port = start_qemu(qemu, program)
    else:
        child, port = start_native(program)
    try:
        write_state(state, {"port": port, "pid": os.getpid()})
        child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        print("ended: its time (PMETA_EMULATOR_SECONDS) is up", flush=True)
    finally:
        child.kill()
        child.wait()
        record = read_state(state)
        if record is not None and record["pid"] == os.getpid():
            state.unlink(missing_ok=True)
    return 0


def start_qemu(qemu: list[str], firmware: Path) -> tuple[subprocess.Popen[bytes], str]:
    """QEMU on a socket that already listens: the port is known and free, and needs no waiting for.

    The first connection is the serial link, so the port must not be probed by connecting to it. Without nodelay every
    short frame would wait for the network stack.
    """
    emulator, *options = qemu
    path = shutil.which(emulator)
    if path is None:
        raise StartError(f"{emulator} is not installed; install QEMU, or use the native board")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        chardev = f"socket,id=link,fd={listener.fileno()},server=on,wait=off,nodelay=on"
        command = [path, *options, "-kernel", str(firmware), "-nographic", "-nodefaults"]
        command += ["-chardev", chardev, "-serial", "chardev:link", "-monitor", "none"]
        child = popen(command, pass_fds=(listener.fileno(),), stdout=None)
        port = listener.getsockname()[1]
    if ended_within(child, SETTLE_SECONDS):
        raise StartError(f"QEMU ended at once (exit status {child.returncode})")
    return child, f"socket://127.0.0.1:{port}"


def start_native(program: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The native program; the first line of its output is the path of its pseudo-terminal."""
    child = popen([str(program)], pass_fds=(), stdout=subprocess.PIPE)
    if child.stdout is None:
        raise StartError("no pipe")
    port = child.stdout.readline().decode().strip()
    if not port:
        raise StartError(f"{program} named no port (exit status {child.wait()})")
    return child, port


def popen(command: list[str], pass_fds: tuple[int, ...], stdout: int | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, pass_fds=pass_fds, preexec_fn=end_with_supervisor
        )
    except OSError as error:
        raise StartError(f"{command[0]}: {error.strerror}") from error


def end_with_supervisor() -> None:
    """In the child: no core dumps, and, on Linux, killed when the supervisor is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def life_seconds() -> float:
    text = os.environ.get("PMETA_EMULATOR_SECONDS", "")
    try:
        seconds = float(text) if text else LIFE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise StartError(f"PMETA_EMULATOR_SECONDS: {text!r} is not a number of seconds above 0")
    return seconds


def read_state(state: Path) -> dict[str, str | int] | None:
    """What STATE says; None where there is none, or it is damaged."""
    try:
        record = json.loads(state.read_text(encoding="utf-8"))
        return {"port": str(record["port"]), "pid": int(record["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(state: Path, record: dict[str, str | int]) -> None:
    """Whole or not at all: who reads it never sees half of it."""
    draft = state.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(record) + "\n", encoding="utf-8")
    draft.replace(state)


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


if __name__ == "__main__":
    sys.exit(main())
