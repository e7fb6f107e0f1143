"""What pmeta-host shows while a device learns: whole at 80 columns, no control codes where there is no terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from pmeta.codegen.taskfile import Task
from pmeta.host.events import QueryDone, SampleDone, StepDone
from pmeta.host.progress import TaskProgress, print_difference, print_result
from pmeta.host.results import TaskResult
from pmeta.host.verify import Difference

pytestmark = pytest.mark.unit

SAMPLES = 125  # as many digits as a task of 5 ways and 25 shots needs


def task(queries: int) -> Task:
    x, y = np.zeros((SAMPLES, 1, 2, 2), np.uint8), np.zeros(SAMPLES, np.uint8)
    return Task(x, y, x[:queries], y[:queries], ("cat", "dog"), "task 0")


def shown(loss: float, queries: int = SAMPLES) -> str:
    """The output for one task whose every loss is `loss`."""
    console = Console(file=io.StringIO(), width=80)
    one, logits = task(queries), np.zeros(2, np.float32)
    result = TaskResult(one, ())
    with TaskProgress(console, one, brief=False) as progress:
        events = [
            *(QueryDone("before", index, logits) for index in range(queries)),
            *(SampleDone(1, index, logits, np.float32(loss)) for index in range(SAMPLES)),
            StepDone(1, ()),
            *(QueryDone("after", index, logits) for index in range(queries)),
        ]
        for event in events:
            progress.show(event, "device = simulator")
            result.add(event)
    print_result(console, result)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (0.25, "loss 0.2500  device = simulator"),
        (7.3e36, "loss 7.30e+36  device = simulator"),
        (float("nan"), "loss nan  device = simulator"),
        (float("inf"), "loss inf  device = simulator"),
    ],
)
def test_a_line_fits_80_columns(loss: float, text: str) -> None:
    output = shown(loss)
    assert text in output
    assert "queries before" in output
    assert f"{SAMPLES}/{SAMPLES}" in output
    assert "…" not in output
    assert "\x1b" not in output


def test_one_query_is_no_queries() -> None:
    assert "(1 query, 2 ways" in shown(0.5, queries=1)
    assert "(3 queries, 2 ways" in shown(0.5, queries=3)


def test_a_difference_shows_no_control_sequences_of_the_model() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_difference(console, Difference("after step 1", "tensor [red]\x1b[2J\n", "1", "2"))
    assert isinstance(console.file, io.StringIO)
    assert r"tensor [red]\x1b[2J\n is 1" in console.file.getvalue()
