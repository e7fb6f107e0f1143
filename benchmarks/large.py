"""How long the paper's networks at full size take to generate and to build for this computer.

    python -m benchmarks.large

Seconds depend on the machine; the goals are meant for two cores of an ordinary one. PlatformIO must be installed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.plan import adapting
from benchmarks.ram import figures_in, pio
from pmeta.codegen.graph import Graph
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.networks import four_conv, resnet12
from pmeta.codegen.project.constants import constant_bytes
from pmeta.codegen.project.generate import generate, write_project

GENERATE_GOAL = {"4Conv-32": 2.0, "ResNet12": 15.0}
BUILD_GOAL = 60.0
NETWORKS: dict[str, Callable[[np.random.Generator], Graph]] = {
    "4Conv-32": lambda rng: four_conv(rng=rng),
    "ResNet12": lambda rng: resnet12(rng=rng),
}


def main() -> None:
    """Print the table; exit code 1 where a goal is missed."""
    table = Table(
        "network, all layers learn, 5 steps", "constants", "arena", "generate", "goal", "build", "goal", "RAM"
    )
    reached = True
    for name, network in NETWORKS.items():
        with tempfile.TemporaryDirectory(prefix="pmeta-large-") as temporary:
            folder = Path(temporary)
            save_model(adapting(network(np.random.default_rng(12)), None, steps=5), folder / "model.onnx")
            started = time.monotonic()
            project = generate(folder / "model.onnx", ["native"])
            write_project(project, folder / "project")
            generated = time.monotonic() - started
            started = time.monotonic()
            figures = figures_in(pio(folder / "project", "run", "-e", "native").stdout)
            built = time.monotonic() - started
        reached &= generated <= GENERATE_GOAL[name] and built <= BUILD_GOAL and figures.equal
        sizes = [f"{constant_bytes(project.plan):,}", f"{project.plan.arena_bytes:,}"]
        seconds = [f"{generated:.1f} s", f"≤ {GENERATE_GOAL[name]:.0f} s", f"{built:.1f} s", f"≤ {BUILD_GOAL:.0f} s"]
        table.add_row(name, *sizes, *seconds, "equal" if figures.equal else "DIFFERS")
    Console(width=120).print(table)
    raise SystemExit(0 if reached else 1)


if __name__ == "__main__":
    main()
