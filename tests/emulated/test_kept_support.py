"""A support set that the device keeps, over the link: the simulator's bits, and RAM as predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import DataError
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.support import SupportOptions
from pmeta.codegen.taskfile import Task, save_tasks
from pmeta.host.events import SampleKept
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import connector
from pmeta.host.project import Project, open_project
from pmeta.host.simulator.simulator import Simulator
from pmeta.host.verify import verify
from tests.models import random_4conv, random_samples, regression

SAMPLES = 6
KINDS = {"classes": lambda model: model, "numbers": regression}

boards = pytest.mark.parametrize(
    "board",
    [pytest.param("native", marks=pytest.mark.differential), pytest.param("netduinoplus2", marks=pytest.mark.emulated)],
)


def task_for(model: Model, seed: int) -> Task:
    x, y = random_samples(model, seed, SAMPLES + 2)
    y = y if model.adaptation.regression else y.astype(np.uint8)
    names = tuple(map(str, range(model.adaptation.ways)))
    return Task(x[:SAMPLES], y[:SAMPLES], x[SAMPLES:], y[SAMPLES:], names, f"task {seed}")  # type: ignore[arg-type]


def differences(project: Project, board: str, tasks: list[Task], model: Model) -> list[str]:
    """Where device and simulator part; the tasks one after the other in one session."""
    port = project.port(board)
    found, kept = [], 0
    with Device(Client(connector(port, 115200), port, Timeouts())) as device:
        device.handshake(project.manifest)
        for task in tasks:
            for one in verify(device, project.manifest, project.fitting(task), Simulator(model), full=True):
                found += [str(one.difference)] if one.difference else []
                kept += isinstance(one.event, SampleKept)
    assert kept == (SAMPLES * len(tasks) if project.manifest.support == "ram" else 0)
    return found


@boards
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["ram", "flash"])
def test_over_the_link(place: str, kind: str, board: str, platformio, tmp_path: Path) -> None:
    model = KINDS[kind](random_4conv(9, width=4, steps=2))
    tasks = [task_for(model, seed) for seed in (1, 2)]
    save_model(model, tmp_path / "model.onnx")
    save_tasks(tasks, tmp_path / "tasks.npz")
    options = (
        SupportOptions("ram", SAMPLES) if place == "ram" else SupportOptions("flash", None, tmp_path / "tasks.npz")
    )
    generated = generate(tmp_path / "model.onnx", [board], support_options=options)
    folder = tmp_path / "project"
    write_project(generated, folder)
    project = open_project(folder)
    done = platformio(folder, "run", "-e", board, "-t", "upload")
    try:
        parts = ("model",) if board == "native" else ("model", "link", "stack")
        predicted = project.manifest.ram(*parts)
        assert f"RAM: predicted {predicted} B, linked {predicted} B: equal" in done.stdout, done.stdout
        if place == "flash":
            assert differences(project, board, tasks[:1], model) == []
            with pytest.raises(DataError, match="another support set than lies in flash"):
                project.fitting(tasks[1])
        else:
            assert differences(project, board, tasks, model) == []
    finally:
        platformio(folder, "run", "-e", board, "-t", "stop")
    tested = platformio(folder, "test", "-e", board)
    assert tested.returncode == 0, tested.stdout
    assert ("kept" in tested.stdout) == (place == "ram")
