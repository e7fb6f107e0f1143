"""The summary that `pmeta-gen` prints: RAM per board, the steps, the constants in flash."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pmeta.codegen.boards import Board
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.report.figures import board_figures, flash_figures, step_figures
from pmeta.codegen.report.occupancy import scenes
from pmeta.codegen.report.text import bytes_text, display_name, macs_text


def summary_table(plan: Plan, manifest: Manifest, boards: Sequence[Board]) -> RenderableType:
    """What a user wants to know before building. Names go in as plain text: a model's are no markup."""
    flash = flash_figures(plan)
    attention = f", {bytes_text(flash.attention)} of it attention" if flash.attention else ""
    constants = Text(f"Constants in flash {bytes_text(flash.total)}{attention}; code comes on top when it is linked.")
    return Group(_ram_table(manifest, boards), _step_table(plan, manifest), constants, "")


def _ram_table(manifest: Manifest, boards: Sequence[Board]) -> Table:
    figures = [board_figures(manifest, board) for board in boards]
    names = list(dict.fromkeys(name for board in figures for name, _ in board.parts))
    table = _table("RAM, predicted", "board")
    for name in (*names, "total", "limit", "used"):
        table.add_column(name, justify="right")
    for board in figures:
        parts = dict(board.parts)
        cells = [f"{parts[name]:,}" if name in parts else "" for name in names]
        limit = [f"{board.limit:,}", f"{100 * board.total / board.limit:.1f} %"] if board.limit else ["", ""]
        table.add_row(board.board.name, *cells, f"{board.total:,}", *limit)
    return table


def _step_table(plan: Plan, manifest: Manifest) -> Table:
    all_scenes = scenes(plan)
    table = _table("Per step and sample", "step")
    table.add_column("learning", overflow="fold")
    for name in ("arena in use", "Eq. 16", "MACs", "Eq. 18"):
        table.add_column(name, justify="right", no_wrap=True)
    for k in range(1, manifest.steps + 1):
        step = step_figures(plan, all_scenes, k)
        learning = ", ".join(display_name(name, longest=20) for name, _ in step.learning) or "nothing"
        memory = [f"{step.peak_bytes:,}", f"{step.bound.memory_bytes:,}"]
        table.add_row(str(k), Text(learning), *memory, macs_text(step.macs), macs_text(step.bound.macs))
    return table


def _table(title: str, first_column: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column(first_column, no_wrap=True)
    return table
