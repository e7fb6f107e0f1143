"""Live progress and the final table, with rich. Nothing here talks to a device or computes a result."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pmeta.codegen.errors import printable
from pmeta.codegen.progress import NamedBars
from pmeta.codegen.report.text import count_text
from pmeta.codegen.taskfile import Task
from pmeta.host.events import Event, Phase, QueryDone, Resumed, SampleDone, SampleKept, StepDone
from pmeta.host.results import TaskResult
from pmeta.host.verify import Difference

MAX_ROWS = 25  # of the query table; the worst predictions come first
MAX_NUMBERS = 3  # of a target or of outputs that the query table shows
PHASES: tuple[Phase, ...] = ("before", "after")


class TaskProgress(NamedBars):
    """One bar per step over its support samples, and one for the queries before and after.

    brief: the bars vanish when the task is done.
    """

    def __init__(self, console: Console, task: Task, brief: bool) -> None:
        super().__init__(console, transient=brief, hidden=brief and not console.is_terminal)  # else a line would stay
        self._task = task
        self._console = console
        self._losses: list[float] = []

    def show(self, event: Event, verdict: str = "") -> None:
        """Advances the event's bar; `verdict` is what comparing with the simulator gave."""
        match event:
            case QueryDone():
                self.advance(f"queries {event.phase}", event.index + 1, len(self._task.query_x), verdict)
            case SampleDone():
                self._losses = [*self._losses[: event.index], float(event.loss)]
                self.advance(f"step {event.step}", event.index + 1, len(self._task.support_x), self._mean_loss())
            case StepDone():
                note = f"{self._mean_loss()}  {verdict}"
                self.advance(f"step {event.step}", len(self._task.support_x), len(self._task.support_x), note)
            case SampleKept():
                self.advance("support set", event.index + 1, len(self._task.support_x))
            case Resumed():
                at = f"step {event.step}, sample {event.samples}"
                self._console.print(f"[yellow]the device lost the session; going on from {at}[/yellow]")

    def _mean_loss(self) -> str:
        loss = sum(self._losses) / len(self._losses)
        return f"loss {loss:.4f}" if abs(loss) < 1e4 else f"loss {loss:.2e}"  # 1e36 where a step size is too large


def print_result(console: Console, result: TaskResult) -> None:
    """The queries, and how well the device knows them before and after."""
    if result.task.regression:
        _print_numbers(console, result)
    else:
        _print_classes(console, result)


def _print_classes(console: Console, result: TaskResult) -> None:
    task, before, after = result.task, result.predictions("before"), result.predictions("after")
    order = sorted(range(len(after)), key=lambda index: after[index] == int(task.query_y[index]))
    table = _query_table(task, "class")
    for index in sorted(order[:MAX_ROWS]):
        label = int(task.query_y[index])
        cells = (_cell(task, prediction, label) for prediction in (before[index], after[index]))
        table.add_row(str(index), escape(task.class_names[label]), *cells)
    console.print(table)
    count = len(after)
    if count > MAX_ROWS:
        console.print(f"{MAX_ROWS} of {count} queries shown, wrong ones first")
    console.print(
        f"query accuracy {result.accuracy('before'):.1%} before, [bold]{result.accuracy('after'):.1%} after[/bold] "
        f"adaptation ({count_text(count, 'query', 'queries')}, {task.ways} ways, chance {1 / task.ways:.1%})"
    )


def _print_numbers(console: Console, result: TaskResult) -> None:
    task, errors = result.task, result.squared_errors("after")
    order = sorted(range(len(errors)), key=lambda index: -errors[index])
    table = _query_table(task, ", ".join(task.class_names[:MAX_NUMBERS]))
    for index in sorted(order[:MAX_ROWS]):
        rows = (task.query_y[index], result.logits["before"][index], result.logits["after"][index])
        table.add_row(str(index), *(_numbers(row) for row in rows))
    console.print(table)
    count = len(errors)
    if count > MAX_ROWS:
        console.print(f"{MAX_ROWS} of {count} queries shown, those with the largest error")
    console.print(
        f"query mean squared error {result.score('before'):.4g} before, [bold]{result.score('after'):.4g} after[/bold] "
        f"adaptation ({count_text(count, 'query', 'queries')}, {count_text(task.ways, 'output')})"
    )


def _query_table(task: Task, taught: str) -> Table:
    table = Table(title=escape(task.name), title_justify="left")
    for heading in ("query", escape(taught), "before", "after"):
        table.add_column(heading, justify="right" if heading == "query" else "left")
    return table


def _numbers(row: npt.NDArray[Any]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in row[:MAX_NUMBERS])
    return f"{shown}, ..." if len(row) > MAX_NUMBERS else shown


def print_line(console: Console, result: TaskResult, verdict: str) -> None:
    """One task among several."""
    name, form = escape(result.task.name), "10.4g" if result.task.regression else "6.1%"
    before, after = (f"{result.score(phase):{form}} {phase}" for phase in PHASES)
    console.print(f"{name:<24} {before}, {after}  {verdict}".rstrip(), highlight=False)


def print_summary(console: Console, results: Sequence[TaskResult], verdict: str) -> None:
    """What several tasks came to: means over tasks, with the half-width of their 95 % intervals."""
    means = [_mean(results, phase) for phase in PHASES]
    measure = "mean squared error" if results[0].task.regression else "accuracy"
    queries = sum(len(result.task.query_y) for result in results)
    console.print(
        f"{len(results)} tasks, {queries} queries: "
        f"{measure} {means[0]} before, [bold]{means[1]}[/bold] after adaptation"
        + (f"; {verdict} in all of them" if verdict else ""),
        highlight=False,
        soft_wrap=True,
    )


def _mean(results: Sequence[TaskResult], phase: Phase) -> str:
    scores = [result.score(phase) for result in results]
    half_width = 1.96 * stdev(scores) / len(scores) ** 0.5
    if results[0].task.regression:
        return f"{mean(scores):.4g} ± {half_width:.2g}"
    return f"{mean(scores):.1%} ± {100 * half_width:.1f}"


def print_difference(console: Console, difference: Difference) -> None:
    console.print(f"[red]device ≠ simulator[/red]: {escape(printable(str(difference)))}", soft_wrap=True)


def _cell(task: Task, prediction: int, label: int) -> str:
    colour = "green" if prediction == label else "red"
    return f"[{colour}]{escape(task.class_names[prediction])}[/{colour}]"
