"""How long work goes on says how far it is: to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int], None]  # (stage, how many of its parts are done, how many there are)


def nobody_watches(stage: str, done: int, total: int) -> None:
    """An `OnProgress` for who does not want to know."""


class NamedBars:
    """Bars by name, one below the other, with time left."""

    def __init__(self, console: Console, transient: bool, hidden: bool) -> None:
        """transient: they vanish when all is done."""
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=15),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=transient,
            disable=hidden,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, name: str, done: int, total: int, note: str = "") -> None:
        """Show how far something is; its bar is new where it is first heard of."""
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, note="")
        self._progress.update(self._bars[name], completed=done, note=note)


class StageBars(NamedBars):
    """One bar per stage on a terminal, gone when all is done; elsewhere nothing."""

    def __init__(self, console: Console, hidden: bool = False) -> None:
        super().__init__(console, transient=True, hidden=hidden or not console.is_terminal)  # else a line would stay

    def show(self, stage: str, done: int, total: int) -> None:
        """An `OnProgress`."""
        self.advance(stage, done, total)
