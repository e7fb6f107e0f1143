"""report.html: one self-contained page that shows where each byte and each multiply-accumulate goes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from pmeta.codegen.adaptation import Adaptation
from pmeta.codegen.boards import Board
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Role
from pmeta.codegen.project.templates import render
from pmeta.codegen.report.accounts import ALL_CHANNELS, REAL, Account, StepAccounts, accounts_by_step
from pmeta.codegen.report.figures import (
    BoardFigures,
    LayerFigures,
    LayerStep,
    StepFigures,
    board_figures,
    flash_figures,
    layer_figures,
    step_figures,
)
from pmeta.codegen.report.instructions import BoardEstimate, board_estimate
from pmeta.codegen.report.occupancy import Occupant, Scene, scenes
from pmeta.codegen.report.picture import draw, lifetime_text
from pmeta.codegen.report.text import (
    bytes_text,
    count_text,
    display_name,
    macs_text,
    shape_text,
    short_bytes,
    steps_text,
    time_text,
)

ROLES = (
    (Role.MAP, "activation between two nodes"),
    (Role.STORE, "kept from the forward for the backward pass"),
    (Role.MASK, "ReLU bits and winning pool taps"),
    (Role.GRADIENT, "gradient of an activation"),
    (Role.ACCUMULATOR, "gradient of a weight, summed over the samples of a step"),
    (Role.WEIGHT, "updated weight"),
    (Role.BATCH, "samples of a micro-batch, and what attention says of them"),
    (Role.SCRATCH, "scratch of one call"),
)


def report_html(plan: Plan, manifest: Manifest, boards: Sequence[Board]) -> str:
    """The page as text; the same for the same plan, manifest and boards."""
    all_scenes = scenes(plan)
    steps = [step_figures(plan, all_scenes, k) for k in range(1, manifest.steps + 1)]
    on_boards = [board_figures(manifest, board) for board in boards]
    accounts = tuple(accounts_by_step(plan, all_scenes))
    estimates = [found for board in boards if (found := board_estimate(plan, board)) is not None]
    limits = [(b.board.name, plan.arena_bytes + b.limit - b.total) for b in on_boards if b.limit is not None]
    return render(
        "project/report.html.j2",
        autoescape=True,
        title=display_name(plan.model.graph.name),
        facts=_facts(plan, manifest),
        cards=_cards(plan, manifest, steps),
        boards=[_board(figures) for figures in on_boards],
        roles=[{"name": role.value, "meaning": text} for role, text in ROLES if role is not Role.BATCH or plan.batch],
        pictures=[_picture(plan, scene, limits) for scene in all_scenes],
        steps=_step_rows(steps, accounts),
        accounts=_account_rows(accounts),
        clocks=[f"{e.board.name}, {e.board.clock_hz / 1e6:g} MHz" for e in estimates],
        times=_time_rows(plan, estimates),
        layers=[_layer_row(layer) for layer in layer_figures(plan)],
        flash=_flash_rows(plan, manifest),
    )


def _ways(adaptation: Adaptation) -> str:
    if adaptation.regression:
        return f"{count_text(adaptation.ways, 'output')}, mean squared error"
    return f"{adaptation.ways} ways"


def _facts(plan: Plan, manifest: Manifest) -> list[tuple[str, str]]:
    """What the page is about: (term, value)."""
    adaptation = plan.model.adaptation
    shape = f"{shape_text(plan.graph.input_shape)} {adaptation.encoding.kind}"
    clip = (
        f"clip ratios ρ {adaptation.rho_fw / 1000:g} forward, {adaptation.rho_bw / 1000:g} backward"
        if adaptation.attention
        else "none"
    )
    return [
        ("Command", manifest.command),
        ("Model", f"sha256 {manifest.model_sha256}"),
        ("Firmware id", manifest.firmware_id),
        ("Numerics", ", ".join(sorted(set(manifest.numerics)))),
        ("Sample", f"{shape}, {bytes_text(manifest.sample_bytes)}"),
        ("Adaptation", f"{display_name(adaptation.method)}, {_ways(adaptation)}, {manifest.steps} steps"),
        ("Attention", clip),
        ("Storage", f"maps {adaptation.storage.maps}, kept for the backward pass {adaptation.storage.kept}"),
    ]


def _cards(plan: Plan, manifest: Manifest, steps: Sequence[StepFigures]) -> list[dict[str, str]]:
    """The summary strip."""
    placement, flash = plan.placement, flash_figures(plan, manifest)
    over = placement.size / placement.lower_bound
    verdict = "no layout can be smaller" if placement.size == placement.lower_bound else "1.00 cannot be beaten"
    least, most = min(step.macs for step in steps), max(step.macs for step in steps)
    learned = sum(weight.weight.bytes for weight in plan.learned)
    return [
        {"title": "Arena", "value": short_bytes(plan.arena_bytes), "note": bytes_text(plan.arena_bytes)},
        {"title": "Arena over lower bound", "value": f"{over:.3f}", "note": verdict},
        {"title": "Constants in flash", "value": short_bytes(flash.total), "note": bytes_text(flash.total)},
        {
            "title": "MACs per sample and step",
            "value": macs_text(most),
            "note": f"in the costliest step; least {macs_text(least)}",
        },
        {"title": "Learned tensors", "value": str(len(plan.learned)), "note": bytes_text(learned)},
    ]


def _board(figures: BoardFigures) -> dict[str, Any]:
    """RAM of one board as a bar: its parts against its limit."""
    whole = figures.limit or figures.total
    parts = [
        {"name": name, "bytes": bytes_text(size), "percent": _percent(size, whole), "kind": index % 4}
        for index, (name, size) in enumerate(figures.parts)
    ]
    used = (
        f"{100 * figures.total / whole:.1f} % of {bytes_text(whole)}" if figures.limit else "the host's memory limits"
    )
    return {
        "name": figures.board.name,
        "title": figures.board.title,
        "total": figures.total,
        "used": used,
        "parts": parts,
    }


def _picture(plan: Plan, scene: Scene, limits: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """One memory-over-time picture and the table of its buffers."""
    title = f"Adaptation, {steps_text(scene.steps)}" if scene.steps else "Prediction, after the last step"
    learning = sorted({w.layer for w in plan.learned if set(scene.steps) & set(w.steps)}, key=_position(plan))
    what = f"learning: {', '.join(map(display_name, learning)) or 'nothing'}" if scene.steps else "one query sample"
    if len(scene.program.stages) > 1:
        what += f"; samples of a micro-batch of {plan.batch[0].shape[0]} pass through several times"
    return {
        "title": title,
        "note": f"{what}; {len(scene.calls)} calls, at most {bytes_text(scene.peak_bytes)} hold data",
        "svg": draw(scene, plan.arena_bytes, limits),
        "buffers": [_buffer_row(occupant, scene) for occupant in sorted(scene.occupants, key=_first_use)],
    }


def _first_use(occupant: Occupant) -> tuple[bool, int, int]:
    """Order of the buffer table: what outlives the sample, then by first use."""
    return not occupant.outlives_sample, occupant.first, occupant.offset


def _buffer_row(occupant: Occupant, scene: Scene) -> dict[str, str]:
    calls = len(scene.calls)
    return {
        "name": display_name(occupant.name),
        "role": occupant.role.value,
        "shape": f"{shape_text(occupant.buffer.shape)} {occupant.buffer.ctype}",
        "bytes": f"{occupant.bytes:,}",
        "offset": f"{occupant.offset:,}",
        "lifetime": lifetime_text(occupant, scene),
        "start": _percent(occupant.first, calls),
        "length": _percent(occupant.last - occupant.first + 1, calls),
    }


def _position(plan: Plan) -> Any:
    """Sorts layer names topologically."""
    return [layer.name for layer in plan.graph.layers].index


def _step_rows(steps: Sequence[StepFigures], accounts: Sequence[StepAccounts]) -> list[dict[str, Any]]:
    """The accounts' totals, memory and computation each on one common scale."""
    of_step = {step: group.accounts for group in accounts for step in group.steps}
    shown = {step: [a for a in found if a.name != ALL_CHANNELS] for step, found in of_step.items()}
    memory = max(account.memory for found in shown.values() for account in found)
    macs = max(account.macs.total for found in shown.values() for account in found)
    return [
        {
            "step": s.step,
            "learning": [{"layer": display_name(name), "alpha": f"{alpha:.4g}"} for name, alpha in s.learning],
            "memory": [_bar(account.memory, memory, _kind(account)) for account in shown[s.step]],
            "macs": [_bar(account.macs.total, macs, _kind(account)) for account in shown[s.step]],
        }
        for s in steps
    ]


def _account_rows(accounts: Sequence[StepAccounts]) -> list[dict[str, Any]]:
    """Every term of every account, per step."""
    return [
        {
            "title": steps_text(group.steps).capitalize(),
            "learning": ", ".join(map(display_name, group.learning)) or "nothing",
            "memory": [(account.name, _memory_terms(account)) for account in group.accounts],
            "macs": [(account.name, _mac_terms(account)) for account in group.accounts],
        }
        for group in accounts
    ]


def _memory_terms(account: Account) -> list[str]:
    """The terms of Eq. 16, updated weights, and their sum."""
    weights = "" if account.updated_weights is None else f"{account.updated_weights:,}"
    terms = (account.maps, account.accumulators, account.stored, account.bits)
    return [*(f"{term:,}" for term in terms), weights, f"{account.memory:,}"]


def _mac_terms(account: Account) -> list[str]:
    """The terms of Eq. 18, attention, and their sum."""
    macs = account.macs
    terms = (macs.forward, macs.weight_gradients, macs.input_gradients, macs.attention, macs.total)
    return [f"{term:,}" for term in terms]


def _kind(account: Account) -> str:
    return "real" if account.name == REAL else "paper"


def _time_rows(plan: Plan, estimates: Sequence[BoardEstimate]) -> list[dict[str, Any]]:
    """Estimated instructions and seconds per sample: steps with the same program in one row, then prediction."""
    rows = []
    for program in plan.adapt:
        steps = plan.steps_of(program)
        cells = [time_text(estimate, estimate.steps[steps[0] - 1].sample) for estimate in estimates]
        rows.append({"title": steps_text(steps).capitalize(), "cells": cells})
    cells = [time_text(estimate, estimate.prediction) for estimate in estimates]
    return [*rows, {"title": "Prediction", "cells": cells}]


def _bar(value: int, whole: int, kind: str) -> dict[str, str]:
    return {"text": f"{value:,}", "percent": _percent(value, whole), "kind": kind}


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}"


def _layer_row(layer: LayerFigures) -> dict[str, Any]:
    return {
        "name": display_name(layer.name),
        "operator": layer.operator,
        "shape": f"{shape_text(layer.shape_in)} → {shape_text(layer.shape_out)}",
        "weights": f"{layer.weight_bytes:,}",
        "input": f"{layer.input_bytes:,}",
        "output": f"{layer.output_bytes:,}",
        "macs": f"{layer.forward_macs:,}",
        "kept": f"{_kept(layer.kept_in)} / {_kept(layer.kept_out)}",
        "steps": [_layer_step(step) for step in layer.steps],
    }


def _kept(kept: tuple[int, int] | None) -> str:
    return f"{kept[0]} of {kept[1]}" if kept else "all"


def _layer_step(step: LayerStep) -> dict[str, str]:
    """One cell of the layer table: α, and what is stored for it."""
    alpha = f"α {step.alpha:.4g}" if step.alpha else "frozen"
    if step.stored is None:
        return {"alpha": alpha, "stored": "", "css": "learns" if step.alpha else "frozen"}
    stored = step.stored
    rows = (
        "x̂ whole" if stored.for_input_gradient else "whole" if stored.dense else f"{stored.rows} of {stored.channels}"
    )
    return {
        "alpha": alpha,
        "stored": f"{rows}, {bytes_text(stored.bytes)}",
        "css": "learns" if step.alpha else "passes",
    }


def _flash_rows(plan: Plan, manifest: Manifest) -> list[tuple[str, str, str]]:
    """(what, bytes, remark)."""
    flash = flash_figures(plan, manifest)
    count = sum(prod(array.shape) for array in plan.graph.weights.values())
    return [
        ("Weights", f"{flash.weights:,}", f"{count:,} float32 values in {len(plan.graph.weights)} tensors"),
        ("Attention modules", f"{flash.attention:,}", "those that some step asks"),
        ("Input scales and offsets", f"{flash.encoding:,}", "one each per channel"),
        *([("Support set", f"{flash.support:,}", f"{manifest.support_samples} samples")] if flash.support else []),
        ("Constants", f"{flash.total:,}", "exact"),
        ("Code", "unknown until linked", "`pio run` prints it; it includes shapes and step sizes"),
    ]
