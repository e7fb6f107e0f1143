"""Estimated instructions of a step against those that the emulated boards count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.emulated_counts import count_whole
from benchmarks.instructions_per_mac import SHIPPED, WITHIN
from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import MPS2_AN500, NETDUINOPLUS2, Board
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.report.instructions import estimate_prediction, estimate_step
from tests.models import random_4conv, random_samples

pytestmark = pytest.mark.emulated

MODELS: dict[str, Callable[[], Model]] = {
    "shipped": lambda: load_model(SHIPPED),
    "everything learns": lambda: random_4conv(3, width=12, steps=2, attention=False, size=(3, 24, 24)),
}


@pytest.mark.parametrize("board", [NETDUINOPLUS2, MPS2_AN500], ids=lambda board: board.name)
@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_close(name: str, board: Board, tmp_path: Path) -> None:
    model = MODELS[name]()
    plan = make_plan(model)
    counted = count_whole(plan, random_samples(model, 1, 1)[0][0], board, tmp_path)
    assert estimate_prediction(plan, board.core) == pytest.approx(counted.prediction, rel=WITHIN)
    for step, measured in enumerate(map(sum, zip(counted.samples, counted.ends, strict=True)), start=1):
        estimate = estimate_step(plan, step, board.core)
        assert estimate is not None and estimate.of(1) == pytest.approx(measured, rel=WITHIN)
