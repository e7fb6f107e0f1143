"""Compiles the link with the fake model as a native program, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from pmeta.codegen.project.link_size import LINK_MAX_PAYLOAD, link_state_bytes
from tests.link_support.fake_library import SAMPLE_BYTES, STEPS, TENSORS

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "firmware_templates"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")
PLAN_HEADER = """#include "pmeta_model.h"
int pmeta_target_is_possible(pmeta_target target);
"""
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def write_headers(
    folder: Path,
    sample_bytes: int = SAMPLE_BYTES,
    ways: int = 5,
    state_bytes: int = 0,
    regression: bool = False,
    capacity: int = 0,
) -> None:
    """The two generated headers that the link includes; state_bytes 0: the right figure; capacity 0: streamed."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), keep_trailing_newline=True)
    names = [tensor.name for tensor in TENSORS]
    model = {"sample_bytes": sample_bytes, "ways": ways, "steps": STEPS, "tensors": names, "state_bytes": 0}
    kept = 4 + capacity * (sample_bytes + (4 * ways if regression else 4))
    model |= {"regression": regression, "outputs": "outputs", "support": "ram" if capacity else "stream"}
    model |= {"support_samples": capacity, "support_bytes": -(-kept // 8) * 8 if capacity else 0}
    link = {
        "link_max_payload": LINK_MAX_PAYLOAD,
        "link_state_bytes": state_bytes or link_state_bytes(sample_bytes, ways, regression),
    }
    for template, values in (("model/pmeta_model.h.j2", model), ("link/link_config.h.j2", link)):
        text = environment.get_template(template).render(values)
        (folder / Path(template).stem).write_text(text, encoding="utf-8")


def build_device(folder: Path, ways: int = 5, regression: bool = False, capacity: int = 0) -> Path:
    """The program; reads the link's bytes from standard input, writes to standard output."""
    write_headers(folder, ways=ways, regression=regression, capacity=capacity)
    (folder / "pmeta_plan.h").write_text(PLAN_HEADER, encoding="utf-8")
    sources = [TEMPLATES / "link" / "link.c", TEMPLATES / "link" / "main.c"]
    if capacity:
        sources += [TEMPLATES / "model" / name for name in ("pmeta_support.c", "pmeta_support_ram.c")]
    sources += [Path(__file__).parent / name for name in ("fake_model.c", "fake_board.c")]
    program = folder / "device"
    includes = [f"-I{folder}", *(f"-I{TEMPLATES / name}" for name in ("link", "model"))]
    subprocess.run(
        ["gcc", *WARNINGS, "-D_POSIX_C_SOURCE=200809L", "-O1", "-g", *SANITIZERS, *includes, *sources, "-o", program],
        check=True,
    )
    return program
