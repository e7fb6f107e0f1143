"""Transports for tests: to a Python device in memory, to a compiled one in a process, and one that goes wrong."""

from __future__ import annotations

import random
import select
import signal
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pmeta.host.link.frames import Command, Frame, FrameSplitter, encode_frame
from pmeta.host.link.protocol import Transport, TransportLost
from tests.link_support.fake_device import FakeDevice


class MemoryTransport:
    """A device in this process: it answers while the host writes."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._arrived = b""

    def read(self, timeout: float) -> bytes:
        data, self._arrived = self._arrived, b""
        if not data:
            time.sleep(timeout)  # nothing can come meanwhile
        return data

    def write(self, data: bytes) -> None:
        self._arrived += self._device.receive(data)

    def close(self) -> None:
        pass


class DeviceProcess:
    """The compiled link as a program on one end of a socket pair; `connect` gives the other end, again and again."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._start()

    def _start(self) -> None:
        self._host, device = socket.socketpair()
        self._process = subprocess.Popen([self._program], stdin=device, stdout=device, stderr=subprocess.PIPE)
        device.close()
        self._await_start()

    def _await_start(self) -> None:
        """Waits until the device refuses a frame of another protocol version, which leaves no trace in it."""
        self._host.sendall(encode_frame(Frame(Command.HELLO, 1, 1, version=0)))
        splitter = FrameSplitter()
        while not splitter.feed(self._host.recv(64)):
            pass

    def restart(self) -> None:
        """Power off and on."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._close()
        self._start()

    def connect(self) -> Transport:
        return ProcessTransport(self)

    def stop(self) -> None:
        """Closes the link; the device must then end by itself, without a complaint from the sanitizers."""
        self._host.shutdown(socket.SHUT_RDWR)
        code = self._process.wait(10)
        complaint = self._process.stderr.read().decode() if self._process.stderr else ""
        self._close()
        assert code == 0, complaint

    def _close(self) -> None:
        self._host.close()
        if self._process.stderr:
            self._process.stderr.close()

    @property
    def socket(self) -> socket.socket:
        return self._host


class ProcessTransport:
    """Reads and writes whatever process the device is at the moment."""

    def __init__(self, device: DeviceProcess) -> None:
        self._device = device

    def read(self, timeout: float) -> bytes:
        if not select.select([self._device.socket], [], [], timeout)[0]:
            return b""
        data = self._device.socket.recv(4096)
        if not data:
            raise TransportLost("the device died")
        return data

    def write(self, data: bytes) -> None:
        self._device.socket.sendall(data)

    def close(self) -> None:
        pass


@dataclass
class Faults:
    """How often what goes wrong, per transfer. Counts what it did.

    Every kind has its own random numbers: how the stream is cut into reads must not shift the others.
    """

    seed: str
    flip: float = 0.0  # one bit
    lose: float = 0.0  # one to eight bytes
    duplicate: float = 0.0  # the whole chunk
    late: float = 0.0  # the chunk comes only with the next one
    noise: float = 0.0  # random bytes in front
    cut: float = 0.0  # the connection breaks, with what is on the way
    restart: float = 0.0  # the device restarts
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # of places and lengths
        self._dice: dict[str, random.Random] = {}

    def happens(self, name: str) -> bool:
        dice = self._dice.setdefault(name, random.Random(f"{self.seed} {name}"))
        yes = dice.random() < getattr(self, name)
        self.done[name] += yes
        return yes

    def spoil(self, data: bytes) -> bytes:
        """What arrives of `data`."""
        spoiled = bytearray(data)
        if spoiled and self.happens("flip"):
            spoiled[self.rng.randrange(len(spoiled))] ^= 1 << self.rng.randrange(8)
        if self.happens("lose"):
            start = self.rng.randrange(len(spoiled) + 1)
            del spoiled[start : start + self.rng.randint(1, 8)]
        if self.happens("duplicate"):
            spoiled *= 2
        if self.happens("noise"):
            spoiled[:0] = self.rng.randbytes(self.rng.randint(1, 400))
        return bytes(spoiled)


class FaultyTransport:
    """Another transport, seen through `Faults` in both directions."""

    def __init__(self, inner: Transport, faults: Faults, device: DeviceProcess | None = None) -> None:
        self._inner = inner
        self._faults = faults
        self._device = device
        self._held_out = self._held_in = b""

    def write(self, data: bytes) -> None:
        if self._device is not None and self._faults.happens("restart"):
            self._device.restart()
        if self._faults.happens("cut"):
            self._inner.write(data[: self._faults.rng.randrange(len(data))])
            raise TransportLost("cut while writing")
        sent, self._held_out = self._held_out + self._faults.spoil(data), b""
        if self._faults.happens("late"):
            self._held_out = sent
        else:
            self._inner.write(sent)

    def read(self, timeout: float) -> bytes:
        data = self._inner.read(timeout)
        if not data:
            return b""
        if self._faults.happens("cut"):
            raise TransportLost("cut while reading")
        arrived, self._held_in = self._held_in + self._faults.spoil(data), b""
        if self._faults.happens("late"):
            self._held_in, arrived = arrived, b""
        return arrived

    def close(self) -> None:
        self._inner.close()
