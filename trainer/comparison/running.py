"""Jobs side by side, each in a process with one thread; the first Ctrl-C lets all of them save and stop."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from pmeta.codegen import errors
from pmeta.codegen.cli_errors import INTERRUPTED
from pmeta.codegen.errors import PmetaError
from pmeta.trainer.comparison import worker
from pmeta.trainer.comparison.measurement import Job


@dataclass(frozen=True)
class Event:
    """How far a job is."""

    stage: str = ""
    done: int = 0
    total: int = 1
    note: str = ""
    ended: bool = False  # whatever came of it


OnEvent = Callable[[Job, Event], None]  # called by several threads


class Workers:
    """Runs jobs in processes of their own."""

    def __init__(self, limit: int, on_event: OnEvent) -> None:
        """limit: how many at once."""
        self._limit, self._on_event = limit, on_event
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, jobs: Sequence[Job]) -> list[PmetaError]:
        """Waits for all jobs and returns the errors of those that failed, in their order.

        Ctrl-C starts no more jobs, lets those that run save what they have, and raises KeyboardInterrupt; a second one
        ends them at once.
        """
        with ThreadPoolExecutor(self._limit) as pool:
            futures = [pool.submit(self._run, job) for job in jobs]
            try:
                wait(futures)
            except KeyboardInterrupt:
                self._stop(futures)
                raise
        return [error for future in futures if (error := future.result()) is not None]

    def _stop(self, futures: Sequence[Future[PmetaError | None]]) -> None:
        while True:
            with self._lock:
                self._stopped = True
                for process in self._running:
                    process.send_signal(signal.SIGINT)
            try:
                wait(futures)
                return
            except KeyboardInterrupt:
                continue

    def _run(self, job: Job) -> PmetaError | None:
        with tempfile.TemporaryFile() as messages:
            with self._lock:
                if self._stopped:
                    return None
                process = _start(messages.fileno())
                self._running.add(process)
            try:
                error = self._follow(process, job)
            finally:
                with self._lock:
                    self._running.discard(process)
                self._on_event(job, Event(ended=True))
            if error is None and process.returncode not in (0, INTERRUPTED, -signal.SIGINT):
                messages.seek(0)
                text = messages.read().decode(errors="replace")
                raise RuntimeError(f"{job.entry.title}: the process ended with {process.returncode}\n{text}")
        return error

    def _follow(self, process: subprocess.Popen[bytes], job: Job) -> PmetaError | None:
        """Pass on what the process says until it ends; returns its error."""
        assert process.stdin is not None and process.stdout is not None
        error = None
        with process:
            try:
                with process.stdin as stream:
                    pickle.dump(job, stream)
            except BrokenPipeError:
                pass  # it was interrupted
            for line in process.stdout:
                if not line.endswith(b"\n"):
                    break  # it was ended
                event = json.loads(line)
                if "error" in event:
                    kind, *parts = event["error"]
                    error = getattr(errors, kind)(*parts)
                else:
                    self._on_event(job, Event(**event))
        return error


def _start(messages: int) -> subprocess.Popen[bytes]:
    """A worker in a process group of its own: Ctrl-C in a terminal must reach it once, through this process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", worker.__name__]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=messages, env=environment, process_group=0)
