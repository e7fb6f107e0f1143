"""Three accounts of a step, term by term: Appendix A of the paper, what its tables count, and what the plan needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pmeta.codegen.appendix_a import BYTES_PER_WORD, Critical, appendix_a
from pmeta.codegen.paper_accounting import paper_accounting
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Role
from pmeta.codegen.report.macs import MacsByPass, macs_by_pass
from pmeta.codegen.report.occupancy import Scene, scene_of_step

ALL_CHANNELS = "Appendix A, μ = 1"
REAL = "real"


@dataclass(frozen=True)
class Account:
    """One way to count a step: memory in bytes, computation in MACs, both for one sample."""

    name: str
    maps: int  # Eq. 16, first term: the largest map; of the others, what is live at the moment of their peak
    accumulators: int  # second term
    stored: int  # third term, Eq. 17: what is kept from the forward for the backward pass
    bits: int  # fourth term: of ReLU and max-pool, in bytes
    updated_weights: int | None  # in RAM since earlier steps; the paper counts none
    macs: MacsByPass  # the terms of Eq. 18

    @property
    def memory(self) -> int:
        """Eq. 16."""
        return self.maps + self.accumulators + self.stored + self.bits + (self.updated_weights or 0)


@dataclass(frozen=True)
class StepAccounts:
    """The accounts of one or more steps in a row that all agree on."""

    steps: tuple[int, ...]
    learning: tuple[str, ...]  # layers
    accounts: tuple[Account, ...]


def accounts_by_step(plan: Plan, all_scenes: tuple[Scene, ...]) -> Iterator[StepAccounts]:
    """All steps, in order; neighbours whose figures are the same are one."""
    pending: StepAccounts | None = None
    for step in range(1, len(plan.program_of_step) + 1):
        learning = tuple(dict.fromkeys(weight.layer for weight in plan.learned if step in weight.steps))
        accounts = tuple(step_accounts(plan, all_scenes, step))
        if pending is not None and (pending.learning, pending.accounts) == (learning, accounts):
            pending = StepAccounts((*pending.steps, step), learning, accounts)
            continue
        if pending is not None:
            yield pending
        pending = StepAccounts((step,), learning, accounts)
    if pending is not None:
        yield pending


def step_accounts(plan: Plan, all_scenes: tuple[Scene, ...], step: int) -> Iterator[Account]:
    """Step k = 1..K. With attention, Appendix A comes twice: with the most channels that can be kept, and with all."""
    yield _appendix_a(plan, step, "Appendix A", "bound")
    if plan.model.adaptation.attention:
        yield _appendix_a(plan, step, ALL_CHANNELS, "all")
    yield _paper(plan, step)
    yield _real(plan, scene_of_step(all_scenes, step), step)


def _appendix_a(plan: Plan, step: int, name: str, critical: Critical) -> Account:
    """Eqs. 16 to 18 to the letter."""
    terms = appendix_a(plan.model, step, critical)
    return Account(
        name,
        maps=BYTES_PER_WORD * terms.largest_map_words,
        accumulators=BYTES_PER_WORD * terms.accumulator_words,
        stored=terms.stored_input_bytes,
        bits=-(-terms.derivative_bits // 8),
        updated_weights=None,
        macs=MacsByPass(terms.forward_macs, terms.weight_gradient_macs, terms.input_gradient_macs, 0),
    )


def _paper(plan: Plan, step: int) -> Account:
    terms = paper_accounting(plan.model, step)
    stored = terms.stored_input_words + terms.normalized_words + terms.attention_words
    return Account(
        "paper's tables",
        maps=BYTES_PER_WORD * terms.live_words,
        accumulators=BYTES_PER_WORD * terms.accumulator_words,
        stored=BYTES_PER_WORD * stored,
        bits=-(-terms.derivative_bits // 8),
        updated_weights=None,
        macs=MacsByPass(
            terms.forward_macs, terms.weight_gradient_macs, terms.input_gradient_macs, terms.attention_macs
        ),
    )


def _real(plan: Plan, scene: Scene, step: int) -> Account:
    """What lies in the arena at the moment when most of it holds data."""
    held = dict.fromkeys(Role, 0)
    for occupant in scene.occupants:
        if occupant.first <= scene.peak_call <= occupant.last:
            held[occupant.role] += occupant.bytes
    return Account(
        REAL,
        maps=held[Role.MAP] + held[Role.GRADIENT] + held[Role.SCRATCH],
        accumulators=held[Role.ACCUMULATOR],
        stored=held[Role.STORE] + held[Role.BATCH],
        bits=held[Role.MASK],
        updated_weights=held[Role.WEIGHT],
        macs=macs_by_pass(plan, plan.program(step)),
    )
