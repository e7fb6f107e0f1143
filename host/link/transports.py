"""Transports for real and emulated boards: serial ports and pseudo-terminals through pyserial, TCP through a socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import serial
import serial.tools.list_ports

from pmeta.codegen.errors import ConfigError, LinkError
from pmeta.host.link.protocol import Transport, TransportLost

BAUD_RATE = 115200
_CHUNK = 4096
_CONNECT_SECONDS = 5.0


def connector(port: str, baud_rate: int = BAUD_RATE) -> Callable[[], Transport]:
    """What opens `port`: /dev/tty*, COM*, the path of a pseudo-terminal, or socket://host:port."""
    if port.startswith("socket://"):
        host, number = _socket_address(port)
        return lambda: SocketTransport(host, number)
    return lambda: SerialTransport(port, baud_rate)


class SerialTransport:
    """A serial port or pseudo-terminal."""

    def __init__(self, port: str, baud_rate: int) -> None:
        try:
            self._serial = serial.Serial(port, baud_rate, timeout=0, write_timeout=_CONNECT_SECONDS, exclusive=True)
        except (OSError, ValueError, OverflowError) as error:
            number = getattr(error, "errno", None)  # pyserial repeats path and reason in its text
            reason = os.strerror(number) if number else str(error)
            todo = "connect the board; `pmeta-host ports` lists ports"
            raise LinkError(f"cannot be opened ({reason})", port, todo) from error

    def read(self, timeout: float) -> bytes:
        try:
            self._serial.timeout = timeout
            first: bytes = self._serial.read(1)
            waiting = self._serial.in_waiting if first else 0
            if waiting:
                self._serial.timeout = 0
                first += self._serial.read(min(waiting, _CHUNK))
            return first
        except (OSError, TypeError) as error:  # pyserial: TypeError when the port is closed under it
            raise TransportLost(str(error)) from error

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except OSError as error:
            raise TransportLost(str(error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._serial.close()


class SocketTransport:
    """TCP, as emulators offer it. Not pyserial's socket://, which reads byte by byte and leaves Nagle's delay on."""

    def __init__(self, host: str, port: int) -> None:
        where = f"socket://{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, UnicodeError) as error:  # UnicodeError: no possible host name
            reason = getattr(error, "strerror", None) or str(error)
            raise LinkError(
                f"cannot be opened ({reason})", where, "start the board with `pio run -t upload`"
            ) from error

    def read(self, timeout: float) -> bytes:
        try:
            if not select.select([self._socket], [], [], timeout)[0]:
                return b""
            data = self._socket.recv(_CHUNK)
        except (OSError, ValueError) as error:
            raise TransportLost(str(error)) from error
        if not data:
            raise TransportLost("the other side closed the connection")
        return data

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise TransportLost(str(error)) from error

    def close(self) -> None:
        self._socket.close()


def serial_ports() -> list[tuple[str, str]]:
    """(path, description) of every serial port of this computer."""
    return sorted((port.device, port.description) for port in serial.tools.list_ports.comports())


def _socket_address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ConfigError("is not socket://HOST:PORT", url, "write for example socket://127.0.0.1:5000")
    return host, port
