"""Work on all cores: processes that are set up once, then handed one part after another.

Processes, because PyTorch's small operations spend most of their time in Python. Each computes with one thread, and a
part is computed the same wherever it lands, so results do not depend on how many processes there are.
"""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def _read_only(content: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(content)


# The graph's mappings are read-only views, which pickle does not know.
copyreg.pickle(MappingProxyType, lambda view: (_read_only, (dict(view),)))

_work: Callable[[Any], Any]  # of a worker process


def all_cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    set_up: Callable[..., Callable[[Part], Result]], arguments: tuple[Any, ...], parts: Iterable[Part], workers: int
) -> Iterator[Result]:
    """`set_up(*arguments)(part)` of every part, in order.

    Every worker calls `set_up`, a module's function, once; arguments, parts and results are pickled. Few parts are
    taken ahead of the results, so they may come from a generator. One worker is this process.
    """
    if workers == 1:
        yield from map(_prepared(set_up, arguments), parts)
        return
    # A fork would copy locks that PyTorch's threads may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (set_up, arguments)) as executor:
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                with without_ctrl_c():  # a worker starts when there is work for it
                    waiting.append(executor.submit(_run, part))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which a terminal sends to them too: they end when this one does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepared(set_up: Callable[..., Callable[[Part], Result]], arguments: tuple[Any, ...]) -> Callable[[Part], Result]:
    work = set_up(*arguments)

    def with_one_thread(part: Part) -> Result:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work(part)
        finally:
            torch.set_num_threads(threads)

    return with_one_thread


def _start(set_up: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    from pmeta.trainer.allocator import keep_freed_memory

    global _work
    keep_freed_memory()
    _work = _prepared(set_up, arguments)


def _run(part: Any) -> Any:
    return _work(part)
