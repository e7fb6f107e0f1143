"""The project's rule: every operator is in the contract, the simulator and random networks; its calls are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pmeta.codegen.numerics import STRICT
from pmeta.codegen.operators import OPERATORS
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.report.macs import program_macs
from pmeta.host.simulator.operators import SIMULATED
from tests.networks import random_network

pytestmark = pytest.mark.differential

CONTRACT = Path(__file__).parents[3] / "docs" / "numerics.md"
NETWORKS = 100

every_operator = pytest.mark.parametrize("op_type", sorted(OPERATORS))


@every_operator
@pytest.mark.parametrize("section", ["Forward", "Backward"])
def test_the_contract_defines_it(op_type: str, section: str) -> None:
    text = re.split(r"^## ", CONTRACT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = next(part for part in text if part.startswith(section))
    assert re.search(rf"^- \*\*{op_type}[.*]", entries, flags=re.MULTILINE)


@every_operator
def test_the_simulator_computes_it(op_type: str) -> None:
    assert OPERATORS[op_type] in SIMULATED[STRICT]


@every_operator
def test_random_networks_draw_it(op_type: str) -> None:
    graphs = [random_network(seed).graph for seed in range(NETWORKS)]
    assert sum(any(isinstance(node, OPERATORS[op_type]) for node in graph.nodes) for graph in graphs) >= 10


def test_every_call_has_a_mac_count() -> None:
    for seed in range(NETWORKS):
        plan = make_plan(random_network(seed))
        assert all(program_macs(plan, program) > 0 for program in (*plan.adapt, plan.predict))
