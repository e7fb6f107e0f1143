"""Random networks under every way to plan: simulator ≡ compiled C, by bytes, with poison in the arena's free bytes.

    make fuzz                                  2,000 networks
    python -m tests.fuzz --first 1234 --count 1   one again

What fails is kept in fuzz-failures/: the model, and the command that repeats it.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from pmeta.codegen.modelfile import save_model
from pmeta.codegen.plan.strategy import STRATEGIES
from tests.differential.test_simulator_c import assert_same_adaptation
from tests.models import random_chain

FAILURES = Path("fuzz-failures")


def main(
    first: Annotated[int, typer.Option(min=0, help="Seed of the first network.")] = 100_000,
    count: Annotated[int, typer.Option(min=1, help="How many networks.")] = 2000,
) -> None:
    """Exit code 1 if any network failed."""
    console, failed = Console(), 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(failure, seed) for seed in range(first, first + count)]
        for done in track(as_completed(running), "networks", total=count, console=console):
            message = done.result()
            if message:
                failed += 1
                console.print(message, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{count} networks, {failed} failed")
    raise SystemExit(1 if failed else 0)


def failure(seed: int) -> str:
    """What went wrong with one network, and how to repeat it; empty where nothing did."""
    model = random_chain(np.random.default_rng(seed))
    if not model.learned_weights:
        return ""
    strategy = STRATEGIES[seed % len(STRATEGIES)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            assert_same_adaptation(model, Path(folder), strategies=[strategy])
    except Exception:  # whatever it is, it is a finding
        FAILURES.mkdir(exist_ok=True)
        path = FAILURES / f"seed-{seed}.onnx"
        save_model(model, path)
        repeat = f"python -m tests.fuzz --first {seed} --count 1"
        return f"{traceback.format_exc(limit=3)}{path}, {strategy}; again: {repeat}"
    return ""


if __name__ == "__main__":
    typer.run(main)
