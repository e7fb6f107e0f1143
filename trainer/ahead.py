"""What the next iterations need, made by a thread while this one computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """`make(number)` of consecutive numbers, in order, up to `depth` of them ready before they are asked for.

    An exception of `make` is raised where its item would have been returned. Used in a `with` statement, whose end
    waits for what is being made and drops the rest.
    """

    def __init__(self, make: Callable[[int], Item], numbers: range, depth: int) -> None:
        self._make, self._numbers, self._depth = make, iter(numbers), depth
        self._waiting: deque[Future[Item]] = deque()
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> Ahead[Item]:
        self._fill()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._executor.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if not self._waiting:
            raise StopIteration
        item = self._waiting.popleft().result()
        self._fill()
        return item

    def _fill(self) -> None:
        while len(self._waiting) < self._depth and (number := next(self._numbers, None)) is not None:
            self._waiting.append(self._executor.submit(self._make, number))
