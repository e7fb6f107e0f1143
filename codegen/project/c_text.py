"""Pieces of C text."""

from __future__ import annotations

from collections.abc import Sequence

from pmeta.codegen.plan.program import Constant
from pmeta.codegen.project.constants import hex_float

LINE_WIDTH = 112  # of a statement, without its indentation


def comment_text(text: str) -> str:
    """Text from outside, harmless inside a C comment."""
    return "".join(c if c.isalnum() or c in " _.,:;()[]+-=<>" else "_" for c in text)[:120]


def wrapped(start: str, arguments: Sequence[str], end: str = ");") -> list[str]:
    """A call as lines of at most LINE_WIDTH columns, continued under its first argument."""
    lines, line = list[str](), start
    for index, argument in enumerate(arguments):
        text = argument + (end if index == len(arguments) - 1 else ",")
        if len(line) + len(text) + 1 > LINE_WIDTH and line.strip() and not line.endswith("("):
            lines.append(line.rstrip())
            line = " " * len(start)
        line += text if line.endswith("(") or not line.strip() else f" {text}"
    return [*lines, line]


def shape_struct(constant: Constant) -> dict[str, object]:
    """Declaration and fields of a shape struct."""
    fields = [f".{k} = {hex_float(v) if isinstance(v, float) else v}" for k, v in constant.value.fields.items()]
    return {"declaration": f"{constant.value.struct} {constant.name}", "fields": fields}
