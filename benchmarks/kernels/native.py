"""Times the library on this computer beside PyTorch, in one run: forward and full backward of 4Conv-32 at 28×28.

The library is compiled as `pmeta-gen --board native` has it, and takes one sample at a time; PyTorch is eager, on one
thread, and takes one or 25. The variants take turns, so that whatever else the machine does slows all of them; each
figure is processor time, the least over the turns.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import nn

from benchmarks import simulator_speed
from benchmarks.kernels.cases import DIGITS, four_conv_model
from pmeta.codegen.adaptation import Model
from pmeta.trainer.deployed import build_library
from tests.models import random_samples

SAMPLES = 25  # of one step
TURNS = 12
WIDTH, GROUPS, WAYS = 32, 8, 5
PMETA, ONE, BATCH = "pmeta", "PyTorch, batch 1", f"PyTorch, batch {SAMPLES}"


def native_table() -> Table:
    """Milliseconds per sample of each variant, and how they compare; and the simulator's seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _per_sample()
    finally:
        torch.set_num_threads(threads)
    table = Table("4Conv-32, 28×28, forward and backward", "ms per sample", "× pmeta", title="This computer")
    table.title_justify = "left"
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.3f}", f"{value / seconds[PMETA]:.2f}")
    name, model = next(iter(simulator_speed.networks().items()))
    row = simulator_speed.measure(name, model, 1, lambda: None)
    table.add_section()
    table.add_row("simulator, whole adaptation in 5 steps of 25", f"{row.seconds:.1f} s of processor time", "")
    return table


def _per_sample() -> dict[str, float]:
    """Seconds per sample, the least over the turns."""
    model = four_conv_model()
    with tempfile.TemporaryDirectory(prefix="pmeta-native-") as folder:
        variants = {
            PMETA: _library_step(model, Path(folder)),
            ONE: _torch_step(batch=1),
            BATCH: _torch_step(batch=SAMPLES),
        }
        found = {name: float("inf") for name in variants}
        for _ in range(TURNS):
            for name, step in variants.items():
                started = time.process_time()
                step()
                found[name] = min(found[name], (time.process_time() - started) / SAMPLES)
    return found


def _library_step(model: Model, folder: Path) -> Callable[[], None]:
    """SAMPLES samples through the library: logits, loss, gradients of all weights, added up."""
    library = ctypes.CDLL(str(build_library(model, folder)))
    samples = [np.ascontiguousarray(sample).tobytes() for sample in random_samples(model, 0, SAMPLES)[0]]
    logits, loss = (ctypes.c_float * WAYS)(), ctypes.c_float()

    def step() -> None:
        library.pmeta_reset()
        for number, sample in enumerate(samples):
            label = ctypes.c_uint32(number % WAYS)
            assert library.pmeta_adapt_sample(sample, label, logits, ctypes.byref(loss)) == 0

    return step


def _torch_step(batch: int) -> Callable[[], None]:
    """The same in PyTorch, `batch` samples at a time."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for channels in (DIGITS[0], WIDTH, WIDTH, WIDTH):
        conv = nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False)
        blocks += [conv, nn.GroupNorm(GROUPS, WIDTH), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(WIDTH, WAYS))
    samples = torch.rand(SAMPLES, *DIGITS).split(batch)
    labels = (torch.arange(SAMPLES) % WAYS).split(batch)
    loss = nn.CrossEntropyLoss(reduction="sum")

    def step() -> None:
        network.zero_grad()
        for x, y in zip(samples, labels, strict=True):
            loss(network(x), y).backward()

    return step
