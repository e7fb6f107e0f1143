"""Does the plan fit the board? If not: by how much, and which change would make it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import Board
from pmeta.codegen.errors import FitError
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.manifest import StaticObject
from pmeta.codegen.plan.plan import STATE_BYTES, Plan, make_plan
from pmeta.codegen.progress import OnProgress, nobody_watches
from pmeta.codegen.project.c_source import sample_bytes
from pmeta.codegen.project.constants import constant_bytes
from pmeta.codegen.project.link_size import link_state_bytes
from pmeta.codegen.project.platformio import STACK_BYTES

MAX_CONSTANT_BYTES = 256 << 20  # above any microcontroller's flash
MAX_ARENA_BYTES = (1 << 31) - 1  # offsets are 32 bits wide


def statics(plan: Plan) -> tuple[StaticObject, ...]:
    """Every static object of a bare-metal firmware."""
    adaptation = plan.model.adaptation
    link = link_state_bytes(sample_bytes(plan), adaptation.ways, adaptation.regression)
    return (
        StaticObject("pmeta_arena", "model", plan.arena_bytes),
        StaticObject("state", "model", STATE_BYTES),
        StaticObject("link_state", "link", link),
        StaticObject("stack", "stack", STACK_BYTES),
    )


def firmware_ram(plan: Plan) -> int:
    """RAM of a whole bare-metal firmware."""
    return sum(static.bytes for static in statics(plan))


def check_fit(plan: Plan, boards: Sequence[Board], on_progress: OnProgress = nobody_watches) -> None:
    """Raise FitError for the first board that is too small, or where no computer could hold the network."""
    if constant_bytes(plan) > MAX_CONSTANT_BYTES:
        what = f"the weights take {constant_bytes(plan):,} bytes, at most {MAX_CONSTANT_BYTES:,} can be generated"
        raise FitError(what, f"model '{plan.graph.name}'", "use a smaller network")
    if plan.arena_bytes > MAX_ARENA_BYTES:
        what = f"needs an arena of {plan.arena_bytes:,} bytes, at most {MAX_ARENA_BYTES:,} are possible"
        raise FitError(what, f"model '{plan.graph.name}'", "let fewer layers learn, or use a smaller network")
    for board in boards:
        if board.kind == "native":
            continue
        need, where = firmware_ram(plan), f"board '{board.name}'"
        if constant_bytes(plan) > board.flash_bytes:
            over = constant_bytes(plan) - board.flash_bytes
            raise FitError(
                f"the weights alone are {over:,} bytes larger than its flash", where, "use a smaller network"
            )
        if need > board.ram_bytes:
            what = (
                f"needs {need:,} bytes of RAM, {need - board.ram_bytes:,} more than the {board.ram_bytes:,} there are"
            )
            raise FitError(what, where, _what_would_fit(plan.model, board, on_progress))


def _what_would_fit(model: Model, board: Board, on_progress: OnProgress) -> str:
    """The smallest change of the step sizes, from the input upward, that would fit.

    The more layers are frozen, the less RAM is needed: found by bisection.
    """
    layers = [layer.name for layer in model.graph.layers]
    low, high = 1, max(count for count in range(len(layers)) if model.adaptation.alpha[count:].any()) + 1
    answer = "use a network with fewer channels or a smaller input: even with the last layer alone it is too large"
    tried, tries = 0, (high - low).bit_length()
    while low < high:
        on_progress("what would fit", tried, tries)
        count, tried = (low + high) // 2, tried + 1
        need = firmware_ram(make_plan(_with_frozen(model, count)))
        if need <= board.ram_bytes:
            answer = f"train with '{layers[count - 1]}' and all below it frozen, which needs {need:,} bytes"
            high = count
        else:
            low = count + 1
    return answer


def _with_frozen(model: Model, count: int) -> Model:
    """The model with step sizes of zero for the first `count` layers."""
    alpha = model.adaptation.alpha.copy()
    alpha[:count] = 0
    return Model(model.graph, replace(model.adaptation, alpha=frozen_float32(alpha)))
