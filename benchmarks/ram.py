"""Predicted and linked RAM of 20 different models, on this computer and on two bare-metal cores, and the stack there.

    python -m benchmarks.ram          or   make bench-ram

Each model is generated, then built by PlatformIO for every board of BOARDS: lib/pmeta_model on this computer, whole
firmware on a Cortex-M4 and a Cortex-M7. The builds compare the two figures; this prints them side by side. Then each
firmware runs in QEMU: adaptation, predictions and reads, and how much of its painted stack that has used must be less
than the bound from the compiler's figures.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import InputEncoding, Model
from pmeta.codegen.errors import LinkError
from pmeta.codegen.graph import Node
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.networks import four_conv, mlp, resnet12, three_conv
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.storage import Storage
from pmeta.codegen.targets import targets_of
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import BAUD_RATE, connector
from pmeta.host.project import open_project
from tests.models import random_4conv, random_samples, regression, with_encoding, with_storage
from tests.networks import random_network

BOARDS = ("native", "mps2-an386", "mps2-an500")
RANDOM_NETWORKS = 7  # any operators, branches, windows, step sizes and attention
SEEDS = 100  # that they are chosen from
RAM_LINE = re.compile(r"RAM: predicted (\d+) B, linked (\d+) B")
STACK_LINE = re.compile(r"Stack: at most (\d+) B")
DIGITS = (1, 28, 28)
READ_BYTES = 4096  # of each tensor

Pio = Callable[..., "subprocess.CompletedProcess[str]"]  # (project folder, arguments of pio...)


@dataclass(frozen=True)
class Linked:
    """What one build said, in bytes; None where it failed before it could."""

    predicted: int | None
    linked: int | None
    stack: int | None  # bound; also None where the compiler tells none
    used: int | None  # of the stack, in a run; None where it did not run
    output: str

    @property
    def equal(self) -> bool:
        return self.predicted is not None and self.predicted == self.linked

    @property
    def as_predicted(self) -> bool:
        """RAM to the byte, and no more stack than its bound."""
        if self.stack is None or self.used is None:
            return self.equal and self.stack is self.used  # neither is known on this computer
        return self.equal and 0 < self.used <= self.stack


def main() -> None:
    """Print the table; exit code 1 where a figure differs."""
    console, wrong = Console(width=150), list[str]()
    table = Table(
        "model", "layers", "programs", *(f"{board}: predicted, linked" for board in BOARDS), "stack used, at most"
    )
    models = cases()
    with tempfile.TemporaryDirectory(prefix="pmeta-ram-") as folder:
        progress = Console(stderr=True)
        for number, (title, model) in enumerate(track(models.items(), "building", console=progress, transient=True)):
            results = measure(model, Path(folder) / str(number), pio)
            table.add_row(title, str(len(model.graph.layers)), str(len(make_plan(model).adapt)), *_cells(results))
            wrong += [
                f"{title}, {board}:\n{result.output}" for board, result in results.items() if not result.as_predicted
            ]
    console.print(table)
    print(f"{len(models)} models, {len(models) * len(BOARDS)} builds, {len(wrong)} of them with another figure")
    print("\n".join(wrong), end="\n" if wrong else "")
    raise SystemExit(1 if wrong else 0)


def _cells(results: dict[str, Linked]) -> Iterator[str]:
    for result in results.values():
        text = f"{result.predicted:,} {result.linked:,}" if result.predicted and result.linked else "no figures"
        yield f"[{'green' if result.equal else 'red'}]{text}[/]"
    yield ", ".join(f"{result.used} {result.stack}" for result in results.values() if result.used is not None)


def measure(model: Model, folder: Path, run: Pio) -> dict[str, Linked]:
    """Generate `model` in `folder`, build it for every board and run it on those that are emulated; by board."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "model.onnx")
    project = folder / "project"
    write_project(generate(folder / "model.onnx", BOARDS), project)
    found = {"native": figures_in(run(project, "run", "-e", "native").stdout)}
    for board in BOARDS[1:]:
        output = run(project, "run", "-e", board, "-t", "upload").stdout
        try:
            found[board] = replace(figures_in(output), used=stack_used(model, project, board))
        except LinkError as error:
            found[board] = figures_in(f"{output}\n{error}")
        finally:
            run(project, "run", "-e", board, "-t", "stop")
    return found


def stack_used(model: Model, folder: Path, board: str) -> int:
    """Bytes of the painted stack after every step with one sample, predictions, and reads of all tensors."""
    project = open_project(folder)
    (x,), targets = random_samples(model, 1, 1)
    ((target,), sample), port = (targets_of(targets), x.tobytes()), project.port(board)
    with Device(Client(connector(port, BAUD_RATE), port, Timeouts())) as device:
        device.handshake(project.manifest)
        device.reset(1)
        for step in range(1, project.manifest.steps + 1):
            device.adapt(step, 0, sample, target)
            device.end_step(step, 1)
        device.predict(sample)
        for number, tensor in enumerate(project.manifest.tensors):
            device.tensor_crc32(number)
            device.tensor_bytes(number, min(tensor.bytes, READ_BYTES))
        return device.hello().stack_bytes


def figures_in(output: str) -> Linked:
    regions, stack = RAM_LINE.findall(output), STACK_LINE.search(output)
    predicted, linked = (sum(map(int, sizes)) for sizes in zip(*regions, strict=True)) if regions else (None, None)
    return Linked(predicted, linked, int(stack[1]) if stack else None, None, output)


def pio(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """PlatformIO in a project folder."""
    command = [sys.executable, "-m", "platformio", *arguments]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def cases() -> dict[str, Model]:
    """20 models by title: other depths, operators, branches, groups, steps, attention and encodings."""
    last_block = {"block4.conv3", "block4.norm3", "block4.shortcut", "block4.shortcut_norm", "fc"}
    steps = np.random.default_rng(0).random((9, 12)) < 0.5
    models = {
        "4Conv-8, attention": random_4conv(1),
        "4Conv-8, attention, float16, int8": with_storage(random_4conv(2), Storage("int8", "float16")),
        "4Conv-16, colour, all float16": with_storage(
            random_4conv(3, width=16, size=(3, 32, 32), attention=False), Storage("float16", "float16")
        ),
        "4Conv-8, 12 steps": random_4conv(4, steps=12, alpha=0.01 * steps),
        "4Conv-32, 28×28": adapting(four_conv(DIGITS), {"conv4", "norm4", "fc"}, steps=3),
        "4Conv-32, 84×84": adapting(four_conv(), None, steps=5),
        "4Conv-64, 84×84": adapting(four_conv(width=64), {"conv4", "norm4", "fc"}, steps=5),
        "6 blocks, 84×84": adapting(four_conv(width=16, blocks=6), None, steps=2),
        "3 conv, no normalization": adapting(three_conv(), None, steps=2),
        "ResNet12, 4 to 32 channels": adapting(resnet12(channels=(4, 8, 16, 32), groups=2), None, steps=2),
        "ResNet12, 16 to 112 channels": adapting(resnet12(channels=(16, 32, 64, 112)), last_block, steps=2),
        "MLP 980-980-4, two regions": adapting(mlp(980, (980,), 4), None, steps=2),
        "MLP 20-100-100-6, numbers": regression(
            with_encoding(adapting(mlp(), None, steps=1), InputEncoding("float32"))
        ),
    }
    return models | {f"random network {seed}": model for seed, model in _random_networks(RANDOM_NETWORKS)}


def _random_networks(count: int) -> Iterator[tuple[int, Model]]:
    """(seed, model): first those with the most operators that none before them has."""
    left = {seed: random_network(seed) for seed in range(SEEDS)}
    seen: set[type[Node]] = set()
    for _ in range(count):
        seed = max(left, key=lambda seed: (len(operators(left[seed]) - seen), -seed))
        seen |= operators(left[seed])
        yield seed, left.pop(seed)


def operators(model: Model) -> set[type[Node]]:
    """The kinds of nodes of a model."""
    return {type(node) for node in model.graph.nodes}


if __name__ == "__main__":
    main()
