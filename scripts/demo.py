"""`make demo`: the whole chain on the shipped model, command by command, as a user would type them.

Draws a task of unseen icons, generates the firmware, builds it, starts it on the emulated board, lets it learn the five
classes over the serial link, and compares every number with the simulator, bit for bit.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import BuildError
from pmeta.codegen.taskfile import Task, load_tasks

SHOWN = ("RAM: pred", "Stack:", "Flash:", "Listening")  # how these lines of a build begin
ROOT = Path(__file__).resolve().parent.parent
MODEL = "models/icons-4conv-5way.onnx"
FOLDER, TASKS = "demo/icons", "demo/task.npz"
SEED = "7"  # which of the unseen tasks; any other works as well

console = Console(highlight=False)


def main() -> int:
    started = time.monotonic()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    board = "netduinoplus2" if shutil.which("qemu-system-arm") else "native"
    if board == "native":
        console.print("[bold]No QEMU here: the demo runs on this computer's own processor (board native).[/bold]")
    (ROOT / TASKS).parent.mkdir(exist_ok=True)
    try:
        section("A task the model has never seen")
        run("pmeta-train", "tasks", *("--count", "1", "--queries", "5", "--seed", SEED, "--out", TASKS))
        show(load_tasks(ROOT / TASKS)[0])
        section("Generate the firmware")
        run("pmeta-gen", MODEL, "--board", board, "--out", FOLDER)
        section("Build it and start it on the board")
        build_and_start(board)
        section("Learn on the board, beside the simulator")
        run("pmeta-host", "verify", FOLDER, "--board", board, "--tasks", TASKS)
    except subprocess.CalledProcessError as error:
        console.print(f"[red]the demo stopped: {shlex.join(error.cmd)} ended with exit code {error.returncode}[/red]")
        return 1
    except FileNotFoundError as error:
        console.print(f"[red]{error.filename} is not installed; run: make setup-demo[/red]")
        return BuildError.exit_code
    except KeyboardInterrupt:
        console.print("interrupted")
        return cli_errors.INTERRUPTED
    finally:
        stop(board)
    console.print(f"\nWhere each byte goes: {ROOT / FOLDER / 'report.html'}")
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0


def section(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


def run(*command: str) -> None:
    """Show a command and run it in the checkout; CalledProcessError where it fails."""
    console.print(f"[cyan]$ {shlex.join(command)}[/cyan]", soft_wrap=True)
    subprocess.run(command, cwd=ROOT, check=True)


def build_and_start(board: str) -> None:
    """`pio run -t upload`; of its many lines, those about memory and the port."""
    command = ("pio", "run", "-d", FOLDER, "-e", board, "-t", "upload")
    console.print(f"[cyan]$ {shlex.join(command)}[/cyan]", soft_wrap=True)
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = done.stdout.splitlines()
    shown = lines if done.returncode else [line for line in lines if line.startswith(SHOWN)]
    console.print("\n".join(shown), markup=False, soft_wrap=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command)


def stop(board: str) -> None:
    """End the board's program, if it was started."""
    if (ROOT / FOLDER / ".pmeta" / f"{board}.json").exists():
        command = ("pio", "run", "--silent", "-d", FOLDER, "-e", board, "-t", "stop")
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def show(task: Task) -> None:
    """One support drawing per class, side by side, and what has to be learned."""
    first = [int(np.flatnonzero(task.support_y == label)[0]) for label in range(len(task.class_names))]
    pictures = [braille(task.support_x[index, 0]) for index in first]
    for row in zip(*pictures, strict=True):
        console.print("  ".join(row))
    console.print("  ".join(f"{name[:14]:^14}" for name in task.class_names))
    learn, recognize = len(task.support_x), len(task.query_x)
    console.print(f"{len(task.class_names)} classes, {learn} drawings to learn from, {recognize} to recognize")


def braille(image: npt.NDArray[np.uint8]) -> list[str]:
    """A picture (H, W) as lines of Braille characters, 4×2 pixels each; H a multiple of 4, W of 2."""
    dots = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    ink = (image >= 96).reshape(image.shape[0] // 4, 4, image.shape[1] // 2, 2)
    codes = (ink * dots[None, :, None, :]).sum(axis=(1, 3))
    return ["".join(chr(0x2800 + int(code)) for code in row) for row in codes]


if __name__ == "__main__":
    sys.exit(main())
