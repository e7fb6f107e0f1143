"""The benchmark of predicted and linked RAM: its 20 models differ in everything, and their figures in nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ram import BOARDS, Linked, cases, figures_in, measure, operators
from pmeta.codegen import operators as all_operators
from pmeta.codegen.graph import Node
from pmeta.codegen.plan.plan import make_plan

CASES = cases()


@pytest.mark.unit
def test_the_models_are_20_different_ones() -> None:
    assert len(CASES) == 20
    every = {one for one in vars(all_operators).values() if isinstance(one, type) and issubclass(one, Node)}
    assert set().union(*map(operators, CASES.values())) == every - {Node}
    adaptations = [model.adaptation for model in CASES.values()]
    assert {adaptation.encoding.kind for adaptation in adaptations} == {"uint8", "float32"}
    assert {adaptation.regression for adaptation in adaptations} == {True, False}
    assert {adaptation.storage.kept for adaptation in adaptations} == {"float32", "float16", "int8"}
    assert sum(bool(adaptation.attention) for adaptation in adaptations) >= 5
    assert max(len(model.graph.layers) for model in CASES.values()) >= 33
    assert len(make_plan(CASES["4Conv-8, 12 steps"]).adapt) >= 10


@pytest.mark.unit
@pytest.mark.parametrize(
    ("output", "equal"),
    [("RAM: predicted 8 B, linked 8 B: equal", True), ("RAM: predicted 8 B, linked 9 B: DIFFER", False), ("", False)]
    + [("RAM: predicted 8 B, linked 8 B: equal\nPSRAM: predicted 5 B, linked 4 B: DIFFER", False)],
)
def test_a_difference_is_one(output: str, equal: bool) -> None:
    result: Linked = figures_in(output)
    assert result.equal == equal


@pytest.mark.unit
@pytest.mark.parametrize(
    ("stack", "used", "as_predicted"),
    [(None, None, True), (400, 400, True), (400, 401, False), (400, 0, False), (400, None, False), (None, 300, False)],
)
def test_a_stack_without_a_bound_or_a_run_is_wrong(stack: int | None, used: int | None, as_predicted: bool) -> None:
    assert Linked(8, 8, stack, used, "").as_predicted == as_predicted
    assert not Linked(8, 9, stack, used, "").as_predicted


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.parametrize("title", CASES)
def test_predicted_is_linked_and_no_stack_exceeds_its_bound(title: str, platformio, tmp_path: Path) -> None:
    results = measure(CASES[title], tmp_path, platformio)
    assert set(results) == set(BOARDS)
    assert all(result.as_predicted for result in results.values()), results
    assert all(results[board].used is not None for board in BOARDS if board != "native"), results
