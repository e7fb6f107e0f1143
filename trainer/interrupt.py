"""Ctrl-C that waits for the current iteration to end, so that what is saved is whole."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class DeferredInterrupt:
    """While active, the first Ctrl-C only sets `requested`; a second one interrupts at once.

    Only the main thread may use it: only there do signals arrive.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> DeferredInterrupt:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
