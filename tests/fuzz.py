"""Random networks, each checked in every way there is; Hypothesis shrinks what fails to a small network.

    make fuzz                                          3,000 networks
    python -m tests.fuzz --first 12 --count 20         those of one seed
    python -m tests.fuzz --again fuzz-failures/seed-12   a network that failed

What fails is kept in fuzz-failures/: the smallest model found, and how it was planned and tested.
"""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.console import Console
from rich.progress import Progress

from pmeta.codegen.adaptation import Model
from pmeta.codegen.modelfile import load_model, model_bytes, save_model
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.plan.strategy import Strategy
from tests.gradients import assert_follows_pytorch
from tests.models import as_pytorch, random_samples
from tests.networks import Network, networks
from tests.sanitized import VARIANTS, assert_same_adaptation

FAILURES = Path("fuzz-failures")
PER_SEED = 20  # networks: some are variations of those before them
QUERIES = 2
GRADIENT_SAMPLES = 2


# --- one network ---------------------------------------------------------------------------------------------


def check(network: Network) -> None:
    """AssertionError, or whatever else a defect raises, unless all of this holds.

    The model file loses nothing. The simulator's gradients and decisions are PyTorch's. The generated C gives the
    simulator's bits in an arena whose free bytes are poisoned, is clean under AddressSanitizer and
    UndefinedBehaviorSanitizer, and occupies the RAM that was predicted.
    """
    with tempfile.TemporaryDirectory(prefix="pmeta-fuzz-") as name:
        folder = Path(name)
        model = _round_trip(network.model, folder / "model.onnx")
        finite = "ordinary" if network.samples == "special" else network.samples
        exact = as_pytorch(model)  # PyTorch rounds nothing that it stores
        assert_follows_pytorch(exact, *random_samples(model, network.seed, GRADIENT_SAMPLES, finite))
        support, targets = random_samples(model, network.seed, network.support, network.samples)
        queries, _ = random_samples(model, network.seed + 1, QUERIES, network.samples)
        plan, variant = make_plan(model, [network.strategy]), VARIANTS[network.seed % len(VARIANTS)]
        assert_same_adaptation(plan, folder, support, targets, queries, variant)


def _round_trip(model: Model, path: Path) -> Model:
    save_model(model, path)
    loaded = load_model(path)
    assert model_bytes(loaded) == model_bytes(model), "the model file does not say the same when it is read and written"
    assert loaded.graph.same_as(model.graph), "the model file gives another graph"
    return loaded


# --- many networks -------------------------------------------------------------------------------------------


def check_networks(number: int, count: int, failures: Path = FAILURES) -> None:
    """Draw and check `count` networks from the seed `number`; raises what the smallest one that fails raises.

    That one is kept in `failures`.
    """
    kept = failures / f"seed-{number}"

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=tuple(HealthCheck),
    )
    @given(networks())
    def check_all(network: Network) -> None:
        try:
            check(network)
        except Exception as error:
            keep(network, kept)  # the last to fail is the smallest
            error.add_note(f"{network!r}\nagain: {again(kept)}")
            raise

    check_all()


def keep(network: Network, folder: Path) -> None:
    """Write what `kept_network` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(network.model, folder / "model.onnx")
    rest = {"support": network.support, "samples": network.samples, "seed": network.seed}
    rest["strategy"] = asdict(network.strategy)
    (folder / "network.json").write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")


def kept_network(folder: Path) -> Network:
    rest = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    return Network(load_model(folder / "model.onnx"), Strategy(**rest.pop("strategy")), **rest)


def again(folder: Path) -> str:
    """The command that repeats a failure."""
    return f"python -m tests.fuzz --again {folder}"


# --- command -------------------------------------------------------------------------------------------------


def main(
    first: Annotated[int, typer.Option(min=0, help="First seed.")] = 1000,
    count: Annotated[int, typer.Option(min=1, help="How many networks.")] = 3000,
    failed: Annotated[Path | None, typer.Option("--again", help="Check a network that failed before.")] = None,
) -> None:
    """Check random networks, or one that failed before. Exit code 1 if any fails.

    Example: python -m tests.fuzz --count 500
    """
    if failed is not None:
        check(kept_network(failed))
        return
    console, failures = Console(), 0
    sizes = [min(PER_SEED, count - done) for done in range(0, count, PER_SEED)]
    with Progress(console=console) as progress, ProcessPoolExecutor(os.cpu_count(), initializer=one_thread) as pool:
        bar = progress.add_task("networks", total=count)
        running = {pool.submit(failure, first + n, size): size for n, size in enumerate(sizes)}
        for done in as_completed(running):
            progress.advance(bar, running[done])
            if done.result():
                failures += 1
                console.print(done.result(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{count} networks, {failures} of {len(sizes)} seeds with a failure")
    raise SystemExit(1 if failures else 0)


def one_thread() -> None:
    torch.set_num_threads(1)


def failure(number: int, count: int) -> str:
    """What went wrong with the networks of one seed; empty where nothing did."""
    try:
        check_networks(number, count)
    except Exception:  # whatever it is, it is a finding
        return traceback.format_exc(limit=-3)
    return ""


if __name__ == "__main__":
    typer.run(main)
