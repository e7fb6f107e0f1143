"""The project's rule: every operator is in the contract, the simulator and the random chains; its calls are counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.operators import OPERATORS
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.report.macs import program_macs
from pmeta.host.simulator.operators import SIMULATED
from tests.models import random_chain

pytestmark = pytest.mark.differential

CONTRACT = Path(__file__).parents[3] / "docs" / "numerics.md"
CHAINS = 60  # as many as the tests of whole models adapt, from the same seeds

every_operator = pytest.mark.parametrize("op_type", sorted(OPERATORS))


@every_operator
@pytest.mark.parametrize("section", ["Forward", "Backward"])
def test_the_contract_defines_it(op_type: str, section: str) -> None:
    text = re.split(r"^## ", CONTRACT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = next(part for part in text if part.startswith(section))
    assert re.search(rf"^- \*\*{op_type}[.*]", entries, flags=re.MULTILINE)


@every_operator
def test_the_simulator_computes_it(op_type: str) -> None:
    assert OPERATORS[op_type] in SIMULATED


@every_operator
def test_random_chains_draw_it(op_type: str) -> None:
    chains = (random_chain(np.random.default_rng(seed)) for seed in range(CHAINS))
    assert sum(any(isinstance(node, OPERATORS[op_type]) for node in chain.graph.nodes) for chain in chains) >= 10


def test_every_call_has_a_mac_count() -> None:
    for seed in range(CHAINS):
        model = random_chain(np.random.default_rng(seed))
        if model.learned_weights:
            plan = make_plan(model)
            assert all(program_macs(plan, program) > 0 for program in (*plan.adapt, plan.predict))
