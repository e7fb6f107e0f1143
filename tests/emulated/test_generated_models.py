"""Models of any shape on every emulated core: RAM as predicted, and the golden vectors' bits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import BOARDS, HIFIVE1_REVB, MPS3_AN547, MPS3_AN547_HELIUM
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.networks import mlp
from pmeta.codegen.project import constants
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.storage import Storage
from pmeta.codegen.taskfile import Task
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import connector
from pmeta.host.project import open_project
from pmeta.host.simulator.simulator import Simulator
from pmeta.host.verify import verify
from tests.boards import CORES, EMULATED, marks_of, parameters
from tests.models import random_4conv, random_samples, regression, with_batch, with_storage
from tests.networks import random_network

MODELS = {
    "small": lambda: random_4conv(7, width=4, steps=2, size=(1, 16, 16), groups=2),
    "4conv": lambda: random_4conv(7, width=8, steps=2, rho=(300, 300)),
    "network 5": lambda: random_network(5),  # with step sizes per channel
    "network 3": lambda: random_network(3),
    "few bits": lambda: with_storage(random_4conv(9, width=8, steps=2), Storage("int8", "float16")),
    "micro-batches": lambda: with_batch(random_4conv(10, width=8, steps=2), 2),
    "numbers": lambda: regression(random_4conv(8, width=4, steps=2)),
}


# On one board per core; the smallest one has no room for most, and Helium changes convolutions only.
SOME_MODELS = {
    HIFIVE1_REVB: ("small", "network 3"),
    MPS3_AN547_HELIUM: ("small", "network 5", "few bits"),
}
ON_BOARDS = [
    pytest.param(name, board.name, marks=marks_of(board))
    for name in MODELS
    for board in CORES
    if name in SOME_MODELS.get(board, MODELS)
]


@pytest.mark.parametrize(("name", "board"), ON_BOARDS)
def test_every_core(name: str, board: str, platformio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Model = MODELS[name]()
    if name == "network 3":  # as if its weights were many
        monkeypatch.setattr(constants, "TEXT_LIMIT", 0)
    save_model(model, tmp_path / "model.onnx")
    project = generate(tmp_path / "model.onnx", [board])
    write_project(project, tmp_path / "project")
    built = platformio(tmp_path / "project", "run", "-e", board)
    ram = project.manifest.ram("model", "link", "stack")
    assert f"RAM: predicted {ram} B, linked {ram} B: equal" in built.stdout, built.stdout
    assert "Stack: at most " in built.stdout, built.stdout
    tested = platformio(tmp_path / "project", "test", "-e", board)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize("board", parameters(EMULATED))
def test_no_stack_grows_deeper_than_its_bound(board: str, platformio, tmp_path: Path) -> None:
    """The bound is the compiler's, the measure is paint on the board: after an adaptation, predictions and reads."""
    model = MODELS["small" if board == HIFIVE1_REVB.name else "4conv"]()
    save_model(model, tmp_path / "model.onnx")
    folder = tmp_path / "project"
    write_project(generate(tmp_path / "model.onnx", [board]), folder)
    project = open_project(folder)
    started = platformio(folder, "run", "-e", board, "-t", "upload")
    bound = re.search(r"Stack: at most (\d+) B by the compiler's figures \(lib/pmeta_model: (\d+) B\)", started.stdout)
    assert bound is not None, started.stdout
    port = project.port(board)
    try:
        with Device(Client(connector(port, 115200), port, Timeouts())) as device:
            hello = device.handshake(project.manifest)
            x, y = random_samples(model, 1, 3)
            task = Task(x, y.astype(np.uint8), x[:1], y[:1].astype(np.uint8), tuple("abcde"), "task")
            checked = list(verify(device, project.manifest, task, Simulator(model, hello.numerics), full=True))
            assert not [one.difference for one in checked if one.difference is not None]
            used = device.hello().stack_bytes
    finally:
        platformio(folder, "run", "-e", board, "-t", "stop")
    assert int(bound[2]) < used <= int(bound[1]) < project.manifest.ram("stack")


TWO_REGIONS = [board for board in EMULATED if board.more_ram]


@pytest.mark.parametrize("board", parameters(TWO_REGIONS))
def test_an_arena_in_two_regions(board: str, platformio, tmp_path: Path) -> None:
    """A learned layer and its accumulator, each almost as large as the board's first region."""
    inputs, hidden = (220, 400) if BOARDS[board].ram_bytes == MPS3_AN547.ram_bytes else (980, 980)
    model = adapting(mlp(inputs, (hidden,), 4, np.random.default_rng(1)), None, steps=2)
    save_model(model, tmp_path / "model.onnx")
    project = generate(tmp_path / "model.onnx", ["native", board])
    write_project(project, tmp_path / "project")
    assert len(project.plan.arena_parts) == 2
    built = platformio(tmp_path / "project", "run", "-e", board)
    elsewhere, region = project.plan.arena_parts[1], BOARDS[board].more_ram[0].name
    ram = project.manifest.ram("model", "link", "stack") - elsewhere
    assert f"RAM: predicted {ram} B, linked {ram} B: equal" in built.stdout, built.stdout
    assert f"{region}: predicted {elsewhere} B, linked {elsewhere} B: equal" in built.stdout
    for environment in ("native", board):
        tested = platformio(tmp_path / "project", "test", "-e", environment)
        assert tested.returncode == 0, tested.stdout
        assert "tensors_step_2\t[PASSED]" in tested.stdout
