"""The summary that `pmeta-gen` prints: RAM per board, the steps, the constants in flash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pmeta.codegen.boards import Board
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.report.accounts import ALL_CHANNELS, Account, StepAccounts, accounts_by_step
from pmeta.codegen.report.figures import board_figures, flash_figures
from pmeta.codegen.report.instructions import BoardEstimate, board_estimate
from pmeta.codegen.report.occupancy import scenes
from pmeta.codegen.report.text import bytes_text, display_name, macs_text, steps_text, time_text


def summary_table(plan: Plan, manifest: Manifest, boards: Sequence[Board]) -> RenderableType:
    """What a user wants to know before building. Names go in as plain text: a model's are no markup."""
    steps = tuple(accounts_by_step(plan, scenes(plan)))
    tables = {
        "RAM, predicted": _ram_table(manifest, boards),
        "What learns": _learning_table(steps),
        "Memory per step and sample in bytes: Eq. 16": _memory_table(steps),
        "MACs per step and sample: Eq. 18": _macs_table(steps),
    }
    estimates = [found for board in boards if (found := board_estimate(plan, board)) is not None]
    if estimates:
        tables["Time per sample, estimated: measured instructions, one per clock cycle"] = _time_table(plan, estimates)
    shown = [part for title, table in tables.items() for part in (Text(title, style="bold"), table)]
    flash = flash_figures(plan, manifest)
    attention = f", {bytes_text(flash.attention)} of it attention" if flash.attention else ""
    support = f", {bytes_text(flash.support)} of it the support set" if flash.support else ""
    what = f"{bytes_text(flash.total)}{attention}{support}"
    constants = Text(f"Constants in flash {what}; code comes on top when it is linked.")
    return Group(*shown, constants, "")


def _ram_table(manifest: Manifest, boards: Sequence[Board]) -> Table:
    figures = [board_figures(manifest, board) for board in boards]
    names = list(dict.fromkeys(name for board in figures for name, _ in board.parts))
    table = _table("board")
    for name in (*names, "total", "limit", "used"):
        table.add_column(name, justify="right", overflow="fold")
    for board in figures:
        parts = dict(board.parts)
        cells = [f"{parts[name]:,}" if name in parts else "" for name in names]
        limit = [f"{board.limit:,}", f"{100 * board.total / board.limit:.1f} %"] if board.limit else ["", ""]
        table.add_row(board.board.name, *cells, f"{board.total:,}", *limit)
    return table


def _learning_table(steps: Sequence[StepAccounts]) -> Table:
    table = _table("step")
    table.add_column("layers", overflow="fold")
    for _, alike in groupby(steps, key=lambda step: step.learning):
        group = _merged(alike)
        names = (display_name(name, longest=20) for name in group.learning)
        table.add_row(_numbers(group.steps), Text(", ".join(names) or "nothing"))
    return table


def _memory_table(steps: Sequence[StepAccounts]) -> Table:
    table = _table("step")
    table.add_column("", no_wrap=True)
    for name in ("maps", "accumulators", "kept\nEq. 17", "bits", "weights", "total"):
        table.add_column(name, justify="right", vertical="bottom", no_wrap=True)
    for step in steps:
        for number, account in enumerate(_shown(step)):
            weights = "" if account.updated_weights is None else f"{account.updated_weights:,}"
            terms = (account.maps, account.accumulators, account.stored, account.bits)
            cells = [*(f"{term:,}" for term in terms), weights, f"{account.memory:,}"]
            table.add_row("" if number else _numbers(step.steps), account.name, *cells)
    return table


def _macs_table(steps: Sequence[StepAccounts]) -> Table:
    table = _table("step")
    table.add_column("", no_wrap=True)
    for name in ("forward", "weight\ngradients", "input\ngradients", "attention", "total"):
        table.add_column(name, justify="right", vertical="bottom", no_wrap=True)
    for _, alike in groupby(steps, key=lambda step: (step.learning, [account.macs for account in step.accounts])):
        group = _merged(alike)
        for number, account in enumerate(_shown(group)):
            macs = account.macs
            terms = (macs.forward, macs.weight_gradients, macs.input_gradients, macs.attention, macs.total)
            table.add_row("" if number else _numbers(group.steps), account.name, *map(macs_text, terms))
    return table


def _merged(alike: Iterable[StepAccounts]) -> StepAccounts:
    """The first, for the steps of all."""
    groups = list(alike)
    return replace(groups[0], steps=tuple(step for group in groups for step in group.steps))


def _numbers(steps: Sequence[int]) -> str:
    """2; 2, 3; 1–4."""
    return steps_text(steps).removeprefix("steps ").removeprefix("step ")


def _shown(step: StepAccounts) -> tuple[Account, ...]:
    """The report has one more, with μ = 1."""
    return tuple(account for account in step.accounts if account.name != ALL_CHANNELS)


def _time_table(plan: Plan, estimates: Sequence[BoardEstimate]) -> Table:
    table = _table("step")
    for estimate in estimates:
        heading = f"{estimate.board.name}, {estimate.board.clock_hz / 1e6:g} MHz"
        table.add_column(heading, justify="right", overflow="fold")
    for program in plan.adapt:
        steps = plan.steps_of(program)
        cells = (time_text(estimate, estimate.steps[steps[0] - 1].sample) for estimate in estimates)
        table.add_row(_numbers(steps), *cells)
    table.add_row("prediction", *(time_text(estimate, estimate.prediction) for estimate in estimates))
    return table


def _table(first_column: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first_column, no_wrap=True)
    return table
