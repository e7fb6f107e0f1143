"""The shipped model on unseen icons, end to end: generated, built, started, adapted over the link, compared by bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pmeta.codegen.manifest import Manifest
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.taskfile import Task
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import connector
from pmeta.host.project import Project, open_project
from pmeta.host.simulator.simulator import Simulator
from pmeta.host.verify import verify
from pmeta.trainer.datasets.icons import load_icons
from pmeta.trainer.tasks import fixed_tasks

MODEL = Path(__file__).resolve().parents[2] / "models" / "icons-4conv-5way.onnx"
SEED = 77


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("shipped") / "icons"
    write_project(generate(MODEL, ["native", "netduinoplus2"]), folder)
    return open_project(folder)


@pytest.fixture
def started(project: Project, platformio, request: pytest.FixtureRequest) -> Iterator[Device]:
    """The project, built and running on the board that the test names."""
    board = request.param
    done = platformio(project.folder, "run", "-e", board, "-t", "upload")
    assert done.returncode == 0, done.stdout
    parts = ("model",) if board == "native" else ("model", "link", "stack")
    predicted = project.manifest.ram(*parts)
    assert f"RAM: predicted {predicted} B, linked {predicted} B: equal" in done.stdout
    port = project.port(board)
    try:
        with Device(Client(connector(port, 115200), port, Timeouts())) as device:
            device.handshake(project.manifest)
            yield device
    finally:
        platformio(project.folder, "run", "-e", board, "-t", "stop")


def unseen(count: int, queries: int) -> tuple[Task, ...]:
    return tuple(fixed_tasks(load_icons("test"), 5, 5, queries, count, SEED))


def assert_no_differing_bit(device: Device, project: Project, tasks: tuple[Task, ...]) -> None:
    simulator = Simulator(load_model(project.checked_model_path()))
    for task in tasks:
        checked = list(verify(device, project.manifest, task, simulator, full=True))
        differences = [one.difference for one in checked if one.difference is not None]
        assert not differences, f"{task.name}: {differences[0]}"
        expected = len(task.support_x) * project.manifest.steps + len(task.query_x)
        assert len(checked) >= expected, f"{task.name}: only {len(checked)} comparisons"


def assert_stack_suffices(device: Device, project: Project) -> None:
    """By what the board has measured since its start."""
    assert 0 < device.hello().stack_bytes < project.manifest.ram("stack")


@pytest.mark.differential
@pytest.mark.parametrize("started", ["native"], indirect=True)
def test_native(started: Device, project: Project) -> None:
    assert_no_differing_bit(started, project, unseen(4, 3))


@pytest.mark.emulated
@pytest.mark.parametrize("started", ["netduinoplus2"], indirect=True)
def test_emulated(started: Device, project: Project) -> None:
    assert_no_differing_bit(started, project, unseen(1, 1))
    assert_stack_suffices(started, project)


@pytest.mark.slow
@pytest.mark.parametrize("started", ["native"], indirect=True)
def test_native_twenty_tasks(started: Device, project: Project) -> None:
    assert_no_differing_bit(started, project, unseen(20, 15))


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.parametrize("started", ["netduinoplus2"], indirect=True)
def test_emulated_three_tasks(started: Device, project: Project) -> None:
    assert_no_differing_bit(started, project, unseen(3, 15))
    assert_stack_suffices(started, project)


def test_it_fits_the_128_kilobytes_of_the_board(project: Project) -> None:
    manifest: Manifest = project.manifest
    assert manifest.ram("model", "link", "stack") <= 128 * 1024
