"""How long work goes on says how far it is: to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int], None]  # (stage, how many of its parts are done, how many there are)


def nobody_watches(stage: str, done: int, total: int) -> None:
    """An `OnProgress` for who does not want to know."""


class StageBars:
    """One bar per stage on a terminal, gone when all is done; elsewhere nothing."""

    def __init__(self, console: Console, hidden: bool = False) -> None:
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=15),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,  # else an empty line would stay
        )

    def __enter__(self) -> StageBars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """An `OnProgress`."""
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._bars[stage], completed=done)
