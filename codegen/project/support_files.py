"""The files of lib/pmeta_model that keep the support set, where the device does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pmeta.codegen.project.constants import hex_float
from pmeta.codegen.project.templates import render, template_text
from pmeta.codegen.support import Support
from pmeta.codegen.targets import Target, targets_of


def support_files(support: Support, title: str) -> dict[str, str]:
    """File name -> text; none where the support set is streamed."""
    if support.place == "stream":
        return {}
    shared = {name: template_text(f"model/{name}") for name in ("pmeta_support.h", "pmeta_support.c")}
    if support.task is None:
        return {**shared, "pmeta_support_ram.c": template_text("model/pmeta_support_ram.c")}
    task = support.task
    targets = targets_array("targets", "PMETA_SUPPORT_SAMPLES", targets_of(task.support_y))
    samples = [", ".join(map(str, sample.tobytes())) for sample in task.support_x]
    text = render("model/pmeta_support_flash.c.j2", title=title, samples=samples, targets=targets)
    return {**shared, "pmeta_support_flash.c": text}


def targets_array(name: str, length: str, targets: Sequence[Target]) -> dict[str, Any]:
    """Labels, or rows of numbers, as a C array of `length` (a C expression) elements."""
    if all(isinstance(target, int) for target in targets):
        return {"declaration": f"uint32_t {name}[{length}]", "rows": [f"{label}u" for label in targets]}
    rows = [", ".join(hex_float(value) for value in np.atleast_1d(target)) for target in targets]
    return {"declaration": f"float {name}[{length}][PMETA_WAYS]", "rows": [f"{{{row}}}" for row in rows]}
