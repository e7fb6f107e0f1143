"""Boards as parameters of tests: each with the marks of what it needs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pmeta.codegen.boards import BOARDS, Board

EMULATED = tuple(board for board in BOARDS.values() if board.emulated)
CORES = tuple({board.core: board for board in reversed(EMULATED)}.values())  # the first board of each


def parameters(boards: Iterable[Board]) -> list[object]:
    """One parameter per board, its name, for `pytest.mark.parametrize`."""
    return [pytest.param(board.name, marks=marks_of(board)) for board in boards]


def marks_of(board: Board) -> tuple[pytest.MarkDecorator, ...]:
    """What a board needs beside this computer and its compiler."""
    if not board.emulated:
        return ()
    is_riscv = any(prefix.startswith("riscv") for prefix in board.gnu_tools)
    return (pytest.mark.emulated, pytest.mark.riscv) if is_riscv else (pytest.mark.emulated,)
