"""How the report writes names and numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pmeta.codegen.report.instructions import BoardEstimate

LONGEST_NAME = 48


def display_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name from a model file, harmless to look at: control and direction marks replaced, cut to `longest`."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] in "CZ" and c != " " else c for c in name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def count_text(count: int, one: str, many: str = "") -> str:
    """1 task, 2 tasks."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def bytes_text(count: int) -> str:
    """12,544 B."""
    return f"{count:,} B"


def short_bytes(count: float) -> str:
    """12.3 KiB; below 1024 in bytes, from a MiB on in MiB."""
    for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count:.0f} B"


def offset_text(offset: int) -> str:
    """1.75 KiB; to a hundredth, where `short_bytes` would round."""
    for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
        if offset >= size:
            return f"{offset / size:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{offset} B"


def macs_text(count: int) -> str:
    """1.23 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


def shape_text(shape: Sequence[int]) -> str:
    """16 × 28 × 28."""
    return " × ".join(map(str, shape))


def steps_text(steps: Sequence[int]) -> str:
    """step 2; steps 1–3; steps 1, 3."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    if list(steps) == list(range(steps[0], steps[-1] + 1)) and len(steps) > 2:
        return f"steps {steps[0]}–{steps[-1]}"
    return "steps " + ", ".join(map(str, steps))


def time_text(estimate: BoardEstimate, instructions: float) -> str:
    """35.3 M instructions, 2.2 s."""
    seconds = estimate.seconds(instructions)
    shown = f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
    return f"{macs_text(round(instructions))} instructions, {shown}"
