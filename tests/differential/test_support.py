"""A support set that the device keeps, in RAM or in flash: a streamed one's bits, and refusals that change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError, DataError, FitError
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.project.generate import generate
from pmeta.codegen.support import Support, SupportOptions
from pmeta.codegen.targets import targets_of
from pmeta.codegen.taskfile import Task, save_tasks
from pmeta.host.simulator.simulator import Simulator
from tests.compiled import CompiledModel
from tests.models import random_4conv, random_samples, regression
from tests.networks import random_network

pytestmark = pytest.mark.differential

SAMPLES = 5
OK, TARGET, FINISHED, COUNT, SUPPORT, TENSOR, STATE, CAPACITY = range(8)


def task_for(model: Model, seed: int = 1) -> Task:
    """Of SAMPLES support samples and one query."""
    x, y = random_samples(model, seed, SAMPLES + 1)
    y = y if model.adaptation.regression else y.astype(np.uint8)
    names = tuple(map(str, range(model.adaptation.ways)))
    return Task(x[:SAMPLES], y[:SAMPLES], x[SAMPLES:], y[SAMPLES:], names, "task")  # type: ignore[arg-type]


def simulated(model: Model, task: Task) -> Simulator:
    """After all steps, streamed."""
    simulator = Simulator(model)
    while not simulator.finished:
        for sample, target in zip(task.support_x, targets_of(task.support_y), strict=True):
            simulator.adapt_sample(sample, target)
        simulator.end_step(SAMPLES)
    return simulator


@pytest.mark.parametrize("place", ["ram", "flash"])
@pytest.mark.parametrize("seed", range(2000, 2006))
def test_the_bits_of_a_streamed_one(seed: int, place: str, tmp_path: Path) -> None:
    """By itself, and again from the start, as nothing of the first time may stay."""
    model = random_network(seed)
    task = task_for(model)
    support = Support("ram", SAMPLES) if place == "ram" else Support("flash", SAMPLES, task)
    library, simulator = CompiledModel(model, tmp_path, support=support), simulated(model, task)
    if place == "ram":
        for sample, target in zip(task.support_x, targets_of(task.support_y), strict=True):
            assert library.support_add(sample, target) == OK
    assert library.support_count() == SAMPLES
    for _ in range(2):
        library.reset()
        library.poison()
        assert library.adapt() == OK
        assert library.step == model.adaptation.steps + 1
        for weight in model.learned_weights:
            assert library.tensor_bytes(weight.name) == simulator.tensor_bytes(weight.name), weight.name


def test_refusals_change_nothing(tmp_path: Path) -> None:
    model = random_4conv(2, width=4, steps=2)
    library, task = CompiledModel(model, tmp_path, support=Support("ram", SAMPLES)), task_for(model)
    library.reset()
    assert library.adapt() == COUNT  # of nothing
    assert library.support_adapt_sample(0) == COUNT
    assert library.support_add(task.support_x[0], 5) == TARGET
    assert library.support_count() == 0
    for sample, target in zip(task.support_x, targets_of(task.support_y), strict=True):
        library.support_add(sample, target)
    assert library.support_add(task.support_x[0], 0) == CAPACITY
    assert library.support_count() == SAMPLES
    assert library.support_adapt_sample(SAMPLES) == COUNT
    assert library.samples == 0
    assert library.adapt() == OK
    expected = simulated(model, task)
    assert all(library.tensor_bytes(w.name) == expected.tensor_bytes(w.name) for w in model.learned_weights)
    library.support_clear()
    assert library.support_count() == 0


def test_numbers_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    model = regression(random_4conv(2, width=4, steps=2))
    library, task = CompiledModel(model, tmp_path, support=Support("ram", 1)), task_for(model)
    assert library.support_add(task.support_x[0], np.full(5, np.inf, np.float32)) == TARGET
    assert library.support_add(task.support_x[0], task.support_y[0]) == OK


def test_the_options(tmp_path: Path) -> None:
    """What they give, and one clear line where they do not fit."""
    trained, other = random_4conv(2, width=4), random_4conv(2, width=4, ways=4)
    save_model(trained, tmp_path / "model.onnx")
    save_tasks([task_for(trained)], tmp_path / "task.npz")
    save_tasks([task_for(other)], tmp_path / "other.npz")
    assert SupportOptions("ram").resolved(trained).samples == 25  # ways · shots
    with pytest.raises(ConfigError, match=r"--support ram: how many samples .* not known; pass --support-samples N"):
        SupportOptions("ram").resolved(regression(trained))
    with pytest.raises(DataError, match="has 4 classes"):
        SupportOptions("flash", task_file=tmp_path / "other.npz").resolved(trained)
    for arguments, message in (
        (("disk",), "no place is called 'disk'"),
        (("stream", 3), "only RAM needs a number of samples"),
        (("ram", 0), "0 samples"),
        (("flash",), "comes from a task file"),
        (("ram", 3, tmp_path / "task.npz"), "comes from a task file"),
    ):
        with pytest.raises(ConfigError, match=message):
            SupportOptions(*arguments)
    flash = generate(
        tmp_path / "model.onnx", ["native"], support_options=SupportOptions("flash", task_file=tmp_path / "task.npz")
    )
    assert flash.manifest.command.endswith("--support flash --support-task task.npz")
    ram = generate(tmp_path / "model.onnx", ["native"], support_options=SupportOptions("ram", 7))
    assert ram.manifest.command.endswith("--support ram --support-samples 7")
    assert ram.manifest.ram("model") - flash.manifest.ram("model") >= 7 * 784
    with pytest.raises(FitError, match=r"more than .*; --support stream needs"):
        generate(tmp_path / "model.onnx", ["netduinoplus2"], support_options=SupportOptions("ram", 500))
