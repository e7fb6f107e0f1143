"""pmeta-host from the outside: a real model, the real simulator, and a device behind TCP or a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import socket
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.manifest import LearnedTensor, Manifest, firmware_id
from pmeta.codegen.modelfile import load_model, save_model, sha256_of
from pmeta.codegen.numerics import STRICT, VARIANTS, Numerics
from pmeta.codegen.targets import Target
from pmeta.codegen.taskfile import Task, save_tasks
from pmeta.host.cli import main
from pmeta.host.simulator.simulator import SampleResult, Simulator
from tests.link_support.fake_device import FakeDevice
from tests.models import faint, random_4conv, regression

pytestmark = pytest.mark.unit

SHAPE = (1, 16, 16)


class SimulatedLibrary:
    """pmeta_model.h on top of the simulator: a device that is right, unless told to be wrong."""

    def __init__(self, model: Model, names: tuple[str, ...], spoil_step: int = 0, numerics: Numerics = STRICT) -> None:
        self._simulator = Simulator(model, numerics)
        self.numerics = numerics
        self._names = names
        self._spoil_step = spoil_step
        self.ways, self.steps = model.adaptation.ways, model.adaptation.steps
        self.regression, self.capacity = model.adaptation.regression, 0
        self.tensors, self.sample_bytes = len(names), int(np.prod(SHAPE))

    @property
    def step(self) -> int:
        return self._simulator.step

    @property
    def samples(self) -> int:
        return self._simulator.samples

    def reset(self) -> None:
        self._simulator.reset()

    def restart_step(self) -> None:
        raise AssertionError("nothing is lost in these tests")

    def adapt(self, sample: bytes, target: Target) -> SampleResult:
        return self._simulator.adapt_sample(pixels(sample), target)

    def check(self, target: Target) -> None:
        raise AssertionError("nothing is kept in these tests")

    def end_step(self, samples: int) -> None:
        self._simulator.end_step(samples)

    def predict(self, sample: bytes) -> npt.NDArray[np.float32]:
        return self._simulator.predict(pixels(sample))

    def tensor(self, number: int) -> bytes:
        data = bytearray(self._simulator.tensor_bytes(self._names[number]))
        if self.step - 1 == self._spoil_step and number == len(self._names) - 1:
            data[4] ^= 1
        return bytes(data)


def pixels(sample: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(sample, np.uint8).reshape(SHAPE)


@dataclass(frozen=True)
class World:
    """A project folder and a task file."""

    folder: Path
    tasks: Path
    model: Model
    names: tuple[str, ...]
    manifest: Manifest

    def device(self, spoil_step: int = -1, identity: str = "", numerics: Numerics = STRICT) -> FakeDevice:
        library = SimulatedLibrary(self.model, self.names, spoil_step, numerics)
        return FakeDevice(library, bytes.fromhex(identity or self.manifest.firmware_id))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    alpha = np.full((9, 2), 0.05)
    alpha[:2, 0] = 0  # so that the tensors do not begin to change in the order of the layers
    model = random_4conv(3, 4, ways=3, steps=2, alpha=alpha, size=SHAPE, attention=False)
    labels = np.arange(3, dtype=np.uint8)
    return make_world(tmp_path_factory.mktemp("project"), model, labels, ("one", "[bold]two", "three"))


@pytest.fixture(scope="module")
def numbers_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of a model that learns numbers."""
    model = regression(random_4conv(4, 4, ways=2, steps=2, size=SHAPE, attention=False))
    targets = np.array([[0.5, -1], [0, 1], [0.25, 3]], np.float32)
    return make_world(tmp_path_factory.mktemp("numbers"), model, targets, ("speed", "[bold]angle"))


def make_world(folder: Path, model: Model, targets: npt.NDArray[Any], names: tuple[str, ...]) -> World:
    """A project folder of the model, and two tasks whose three samples have these targets."""
    save_model(model, folder / "model.onnx")
    model = load_model(folder / "model.onnx")
    learned, shapes = model.learned_weights, model.graph.weights
    tensors = tuple(LearnedTensor(one.name, one.layer, shapes[one.name].shape, one.steps) for one in learned)
    digest = sha256_of(folder / "model.onnx")
    identity = firmware_id({"model": digest})
    ways, loss = model.adaptation.ways, model.adaptation.loss
    manifest = Manifest(identity, digest, "pmeta-gen", (STRICT,), SHAPE, 256, ways, 2, ("native",), tensors, (), loss)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    rng = np.random.default_rng(0)

    def task(number: int) -> Task:
        support, query = (rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8) for _ in range(2))
        return Task(support, targets, query, targets, names, f"task {number}")

    save_tasks([task(0), task(1)], folder / "tasks.npz")
    return World(folder, folder / "tasks.npz", model, tuple(one.name for one in learned), manifest)


@pytest.fixture
def serve() -> Iterator[Callable[[FakeDevice], str]]:
    """Starts a device behind TCP; returns its port."""
    listeners = []

    def start(device: FakeDevice) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=answer_tcp, args=(listener, device), daemon=True).start()
        return f"socket://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def answer_tcp(listener: socket.socket, device: FakeDevice) -> None:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(4096):
            connection.sendall(device.receive(data))


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def host(*arguments: object) -> Done:
    """`pmeta-host ARGUMENTS` in this process; what would be a traceback fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["pmeta-host", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as caught,
    ):
        main()
    code = caught.value.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def test_verify_equal(world: World, serve: Callable[[FakeDevice], str]) -> None:
    port = serve(world.device())
    done = host("verify", world.folder, "--port", port, "--tasks", world.tasks, "--task", 1, "--full")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("device = simulator") >= 4
    assert done.stdout.count("query accuracy") == 1
    assert "[bold]two" in done.stdout
    assert "most stack used on the device: 1234 bytes" in done.stdout


def test_of_several_tasks_each_gets_a_line_and_all_a_summary(world: World, serve: Callable[[FakeDevice], str]) -> None:
    port = serve(world.device())
    done = host("verify", world.folder, "--port", port, "--tasks", world.tasks, "--count", 2)
    assert done.returncode == 0, done.stderr
    _, first, second, _, summary = done.stdout.splitlines()
    assert first.startswith("task 0 ")
    assert first.endswith("after  device = simulator")
    assert second.endswith("after  device = simulator")
    assert re.match(r"2 tasks, 6 queries: accuracy .* after adaptation; device = simulator in all of them", summary)


def test_verify_finds_one_bit(world: World, serve: Callable[[FakeDevice], str]) -> None:
    port = serve(world.device(spoil_step=2))
    done = host("verify", world.folder, "--port", port, "--tasks", world.tasks, "--json")
    assert done.returncode == 1
    difference = json.loads(done.stdout)["tasks"][0]["difference"]
    assert difference["place"] == "after step 2"
    last = world.manifest.tensors[-1]
    assert difference["what"] == f"tensor {last.name} (layer {last.layer}), element (1,)"


def test_numbers_verified_run_and_simulated(numbers_world: World, serve: Callable[[FakeDevice], str]) -> None:
    project, tasks = numbers_world.folder, ("--tasks", numbers_world.tasks)
    done = host("verify", project, "--port", serve(numbers_world.device()), *tasks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("device = simulator") >= 4
    assert "speed, [bold]angle" in done.stdout
    assert re.search(r"query mean squared error .* before, .* after adaptation \(3 queries, 2 outputs\)", done.stdout)
    several = host("verify", project, "--port", serve(numbers_world.device()), *tasks, "--count", 2)
    assert re.match(r"2 tasks, 6 queries: mean squared error .* before, .* after", several.stdout.splitlines()[-1])
    on_device = host("run", project, "--port", serve(numbers_world.device()), *tasks, "--json")
    simulated = json.loads(host("simulate", project, *tasks, "--json").stdout)["tasks"]
    assert json.loads(on_device.stdout)["tasks"] == simulated
    query, errors = simulated[0]["query"], simulated[0]["mean_squared_error"]
    for phase in ("before", "after"):
        distances = np.array(query[phase]) - np.array(query["target"])
        assert np.isclose(errors[phase], (distances**2).mean())


def test_numerics_are_those_of_the_device(tmp_path: Path, serve: Callable[[FakeDevice], str]) -> None:
    """Of a network whose logits depend on the variant."""
    world = make_world(tmp_path, faint(SHAPE[1]), np.arange(3, dtype=np.uint8), ("one", "two", "three"))
    tasks = ("--tasks", world.tasks)
    simulated = []
    for variant in VARIANTS:
        port = serve(world.device(numerics=variant))
        done = host("verify", world.folder, "--port", port, *tasks, "--json")
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["numerics"] == variant
        on_device = host("run", world.folder, "--port", serve(world.device(numerics=variant)), *tasks, "--json")
        simulated.append(json.loads(host("simulate", world.folder, *tasks, "--numerics", variant, "--json").stdout))
        assert json.loads(on_device.stdout)["tasks"] == simulated[-1]["tasks"]
    assert simulated[0] != simulated[1]
    refused = host("simulate", world.folder, *tasks, "--numerics", "binary64")
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "choose one of: binary32-strict/1, binary32-helium/1" in refused.stderr


def test_tasks_of_another_kind_are_refused(world: World, numbers_world: World) -> None:
    for one, other in ((world, numbers_world), (numbers_world, world)):
        done = host("verify", one.folder, "--tasks", other.tasks)
        assert (done.returncode, done.stderr.count("\n")) == (6, 1)
        assert "the model learns" in done.stderr


def test_run_and_simulate_agree(world: World, serve: Callable[[FakeDevice], str]) -> None:
    port = serve(world.device())
    on_device = host("run", world.folder, "--port", port, "--tasks", world.tasks, "--task", 1, "--json")
    simulated = host("simulate", world.folder, "--tasks", world.tasks, "--task", 1, "--json")
    bare = host("simulate", world.folder / "model.onnx", "--tasks", world.tasks, "--task", 1, "--json")
    assert json.loads(on_device.stdout)["tasks"] == json.loads(simulated.stdout)["tasks"]
    assert bare.stdout == simulated.stdout
    result = json.loads(simulated.stdout)["tasks"][0]
    assert result["task"] == "task 1"
    layers = [f"{kind}{number}" for number in range(1, 5) for kind in ("conv", "norm")]
    assert [tensor.partition(".")[0] for tensor in result["steps"][0]["crc32"] if tensor.endswith("weight")] == [
        *layers, "fc1"
    ]  # fmt: skip
    assert len(result["query"]["after"]) == 3


def test_run_over_a_pseudo_terminal(world: World) -> None:
    """pyserial's side: a real terminal device."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    device, stop = world.device(), threading.Event()

    def answer() -> None:
        while not stop.is_set():
            if select.select([master], [], [], 0.05)[0]:
                os.write(master, device.receive(os.read(master, 4096)))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    done = host("run", world.folder, "--port", os.ttyname(slave), "--tasks", world.tasks, "--json")
    stop.set()
    thread.join()
    os.close(master)
    os.close(slave)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tasks"]) == 1


def test_errors_are_one_line_with_their_exit_code(world: World, serve: Callable[[FakeDevice], str]) -> None:
    other = serve(world.device(identity="ab" * 16))
    tasks = ("--tasks", world.tasks)
    cases = [
        (8, "is not running", ("run", world.folder, *tasks)),
        (8, "cannot be opened", ("run", world.folder, *tasks, "--port", "/dev/no-such-port")),
        (8, "cannot be opened", ("run", world.folder, *tasks, "--port", "socket://127.0.0.1:1")),
        (3, "is not socket://HOST:PORT", ("run", world.folder, *tasks, "--port", "socket://nowhere")),
        (3, "was not generated for board 'pico'", ("verify", world.folder, *tasks, "--board", "pico")),
        (9, "runs firmware abababab", ("run", world.folder, *tasks, "--port", other)),
        (8, "(No such file or directory);", ("run", world.folder, *tasks, "--port", "/dev/no-such-port")),
        (8, "cannot be opened", ("run", world.folder, *tasks, "--port", f"socket://{'a' * 100}.b:1")),
        (6, "holds tasks 0 to 1, not tasks 1 to 2", ("simulate", world.folder, *tasks, "--task", 1, "--count", 2)),
        (6, "holds tasks 0 to 1, not task 2;", ("simulate", world.folder, *tasks, "--task", 2)),
        (6, "cannot be read", ("simulate", world.folder, "--tasks", "missing.npz")),
        (6, "manifest.json", ("run", world.folder.parent, *tasks)),
    ]
    for code, message, arguments in cases:
        done = host(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert message in done.stderr
    assert (
        world.manifest.firmware_id
        in host("run", world.folder, *tasks, "--port", serve(world.device(identity="cd" * 16))).stderr
    )


def test_ports_and_help() -> None:
    assert isinstance(json.loads(host("ports", "--json").stdout), list)
    for command in ("ports", "run", "verify", "simulate"):
        assert "Example: pmeta-host" in host(command, "--help").stdout
