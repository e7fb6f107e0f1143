"""`pmeta-host`: adapts a device on tasks, and checks it against the simulator. Exit codes: `pmeta.codegen.errors`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import EXIT_CODES, DataError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.numerics import STRICT, variant_called
from pmeta.codegen.taskfile import Task, fitting, load_tasks
from pmeta.host.events import Event
from pmeta.host.link.device import Device, Hello
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import BAUD_RATE, connector, serial_ports
from pmeta.host.progress import TaskProgress, print_difference, print_line, print_result, print_summary
from pmeta.host.project import Project, open_project
from pmeta.host.results import TaskResult
from pmeta.host.session import Adaptation
from pmeta.host.simulation import simulated_events
from pmeta.host.simulator.simulator import Simulator
from pmeta.host.verify import Checked, Difference, verify

app = typer.Typer(
    help="Adapt a model on a device over the serial link, and check it bit for bit.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ProjectArgument = Annotated[Path, typer.Argument(metavar="PROJECT", help="Folder that pmeta-gen wrote.")]
BoardOption = Annotated[str, typer.Option("--board", help="Board started with `pio run -t upload -e BOARD`.")]
PortOption = Annotated[str, typer.Option("--port", help="/dev/ttyACM0, COM3 or socket://HOST:PORT; before --board.")]
BaudOption = Annotated[int, typer.Option("--baud", min=300, help="Baud rate of a serial port.")]
TasksOption = Annotated[Path, typer.Option("--tasks", help="Task file (.npz).")]
TaskOption = Annotated[int, typer.Option("--task", min=0, help="First task of the file, counted from 0.")]
CountOption = Annotated[int, typer.Option("--count", min=1, help="How many tasks.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, max=86_400, help="Seconds one sample may take to compute.")
]
NumericsOption = Annotated[str, typer.Option("--numerics", help="Variant of the numerics, as a device names it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and no progress.")]

COMPUTE_SECONDS = Timeouts().compute


def main() -> NoReturn:
    """Entry point of the `pmeta-host` command."""
    cli_errors.run(app)


@app.command()
def ports(as_json: JsonOption = False) -> None:
    """List the serial ports of this computer.

    Example: pmeta-host ports
    """
    found = serial_ports()
    if as_json:
        print(json.dumps([{"port": port, "description": description} for port, description in found]))
        return
    table = Table("port", "description")
    for row in found:
        table.add_row(*row)
    Console().print(table if found else "no serial ports found")


@app.command()
def run(
    project: ProjectArgument,
    tasks: TasksOption,
    board: BoardOption = "native",
    port: PortOption = "",
    baud: BaudOption = BAUD_RATE,
    task: TaskOption = 0,
    count: CountOption = 1,
    timeout: TimeoutOption = COMPUTE_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Adapt the device on a task and show what it has learned.

    Example: pmeta-host run build/omniglot --board native --tasks tasks.npz
    """
    opened = open_project(project)
    chosen = [opened.fitting(one) for one in _choose(tasks, task, count)]
    report = _Report(as_json, count)
    with _connect(opened, board, port, baud, timeout) as device:
        report.begin(device, opened.manifest)
        for one in chosen:
            events = Adaptation(device, opened.manifest, one).events()
            report.watch(one, _tensor_names(opened.manifest), (Checked(event, None) for event in events), "")
        report.end(device)
    report.finish()


@app.command(name="verify")
def verify_command(
    project: ProjectArgument,
    tasks: TasksOption,
    board: BoardOption = "native",
    port: PortOption = "",
    baud: BaudOption = BAUD_RATE,
    task: TaskOption = 0,
    count: CountOption = 1,
    full: Annotated[bool, typer.Option("--full", help="Compare all bytes of all tensors, not their CRC-32.")] = False,
    timeout: TimeoutOption = COMPUTE_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Adapt the device beside the simulator and compare them by bits; exit code 1 if they differ.

    Example: pmeta-host verify build/omniglot --board netduinoplus2 --tasks tasks.npz --count 3
    """
    opened = open_project(project)
    chosen = [opened.fitting(one) for one in _choose(tasks, task, count)]
    model = load_model(opened.checked_model_path())
    report = _Report(as_json, count)
    with _connect(opened, board, port, baud, timeout) as device:
        simulator = Simulator(model, report.begin(device, opened.manifest).numerics)
        for one in chosen:
            checked = verify(device, opened.manifest, one, simulator, full)
            difference = report.watch(one, _tensor_names(opened.manifest), checked, "device = simulator")
            if difference is not None:
                report.finish()
                raise typer.Exit(1)
        report.end(device)
    report.finish()


@app.command()
def simulate(
    source: Annotated[Path, typer.Argument(metavar="PROJECT|MODEL", help="Folder of pmeta-gen, or a model.onnx.")],
    tasks: TasksOption,
    task: TaskOption = 0,
    count: CountOption = 1,
    numerics: NumericsOption = STRICT,
    as_json: JsonOption = False,
) -> None:
    """Adapt in the bit-exact simulator, without a device.

    Example: pmeta-host simulate model.onnx --tasks tasks.npz
    """
    model = load_model(open_project(source).checked_model_path() if source.is_dir() else source)
    shape, adaptation = model.graph.input_shape, model.adaptation
    chosen = [
        fitting(one, shape, adaptation.encoding.kind, adaptation.ways, adaptation.loss)
        for one in _choose(tasks, task, count)
    ]
    names = tuple(weight.name for weight in model.learned_weights)
    simulator, steps = Simulator(model, variant_called(numerics)), model.adaptation.steps
    report = _Report(as_json, count)
    for one in chosen:
        events: Iterator[Event] = simulated_events(simulator, one, steps, names)
        report.watch(one, names, (Checked(event, None) for event in events), "")
    report.finish()


def _choose(path: Path, first: int, count: int) -> tuple[Task, ...]:
    """`count` tasks of a file from number `first`."""
    tasks = load_tasks(path)
    if first + count > len(tasks):
        last = first + count - 1
        asked = f"task {first}" if count == 1 else f"tasks {first} to {last}"
        held = "task 0 only" if len(tasks) == 1 else f"tasks 0 to {len(tasks) - 1}"
        raise DataError(f"holds {held}, not {asked}", str(path), "choose others with --task and --count")
    return tasks[first : first + count]


def _connect(project: Project, board: str, port: str, baud: int, timeout: float) -> Device:
    """Opens the port; the caller's first request is the handshake."""
    where = port or project.port(board)
    return Device(Client(connector(where, baud), where, Timeouts(compute=timeout)))


def _tensor_names(manifest: Manifest) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in manifest.tensors)


@dataclass
class _Report:
    """Shows progress and tables, or collects one JSON object. Of several tasks each gets a line, and all a summary."""

    as_json: bool
    tasks: int  # that will come

    def __post_init__(self) -> None:
        self._console = Console(quiet=self.as_json)
        self._document: dict[str, Any] = {"tasks": []}
        self._results: list[TaskResult] = []
        self._verdict = ""

    def begin(self, device: Device, manifest: Manifest) -> Hello:
        """Greets the device; raises DeviceError if it runs another firmware."""
        hello = device.handshake(manifest)
        line = f"{device.where}: firmware {hello.firmware_id}, numerics {hello.numerics}"
        self._console.print(line, markup=False, highlight=False)
        self._document.update(port=device.where, firmware_id=hello.firmware_id, numerics=hello.numerics)
        return hello

    def end(self, device: Device) -> None:
        """Asks how much stack the work took, where the board knows."""
        stack_bytes = device.hello().stack_bytes
        if stack_bytes:
            self._console.print(f"most stack used on the device: {stack_bytes} bytes (measured)")
        self._document.update(stack_bytes=stack_bytes)

    def watch(self, task: Task, tensors: tuple[str, ...], stream: Iterator[Checked], verdict: str) -> Difference | None:
        """Consumes one task's events while showing them; the first difference from the simulator, if any."""
        result, difference = TaskResult(task, tensors), None
        with TaskProgress(self._console, task, brief=self.tasks > 1) as progress:
            for checked in stream:
                difference = checked.difference
                if difference is not None:
                    break
                progress.show(checked.event, verdict)
                result.add(checked.event)
        if difference is not None:
            print_difference(self._console, difference)
            self._document["tasks"].append({"task": task.name, "difference": vars(difference)})
            return difference
        if self.tasks > 1:
            print_line(self._console, result, verdict)
        else:
            print_result(self._console, result)
        self._results.append(result)
        self._verdict = verdict
        self._document["tasks"].append({**result.to_json(), **({"difference": None} if verdict else {})})
        return None

    def finish(self) -> None:
        """After the last task, or the first difference."""
        if len(self._results) == self.tasks > 1:
            print_summary(self._console, self._results, self._verdict)
        if self.as_json:
            print(json.dumps(self._document))
