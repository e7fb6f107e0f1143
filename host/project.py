"""A generated project as the host tool needs it: manifest, model, and the port its board was started on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from pmeta.codegen.adaptation import LossHead
from pmeta.codegen.errors import ConfigError, DataError, LinkError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.modelfile import sha256_of
from pmeta.codegen.taskfile import Task


@dataclass(frozen=True)
class Project:
    """A folder that pmeta-gen wrote."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.folder / "model.onnx"

    def checked_model_path(self) -> Path:
        """`model_path`; DataError unless the file is the one the firmware was generated from."""
        if not self.model_path.is_file():
            raise DataError("is missing", str(self.model_path), "generate the project again")
        if sha256_of(self.model_path) != self.manifest.model_sha256:
            raise DataError("is not the model of manifest.json", str(self.model_path), "generate the project again")
        return self.model_path

    def port(self, board: str) -> str:
        """The port of a running emulated or native board, as its upload step noted it."""
        if board not in self.manifest.boards:
            known = ", ".join(self.manifest.boards)
            raise ConfigError(f"was not generated for board '{board}'", str(self.folder), f"choose one of: {known}")
        note = self.folder / ".pmeta" / f"{board}.json"
        start = f"start it with `pio run -t upload -e {board}` in the project, or pass --port"
        try:
            fields = json.loads(note.read_text(encoding="utf-8"))
            port, pid = fields["port"], fields["pid"]
        except FileNotFoundError as error:
            raise LinkError(f"board '{board}' is not running", str(self.folder), start) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError("cannot be read", str(note), f"remove it and {start}") from error
        if not isinstance(port, str) or not isinstance(pid, int) or not _is_running(pid):
            raise LinkError(f"board '{board}' is no longer running", str(self.folder), start)
        return port

    def fitting(self, task: Task) -> Task:
        """The task with samples in this model's shape; DataError unless it is one for this model."""
        manifest = self.manifest
        encoding = "uint8" if manifest.sample_bytes == prod(manifest.input_shape) else "float32"
        return fitting(task, manifest.input_shape, encoding, manifest.ways, manifest.loss)


def open_project(folder: Path) -> Project:
    """Reads the manifest; DataError if the folder is no project."""
    return Project(folder, Manifest.load(folder / "manifest.json"))


def fitting(task: Task, input_shape: tuple[int, ...], encoding: str, ways: int, loss: LossHead) -> Task:
    """The task with samples in the model's input shape; DataError unless it is one for such a model.

    `encoding` ("uint8", "float32") is how samples travel. Samples (C, L) are maps of one row for a model of (C, 1, L).
    """
    where, shape = f"task '{task.name}'", task.support_x.shape[1:]
    if task.regression != (loss == "mean_squared_error"):
        kinds = ("classes", "numbers")
        what = f"teaches {kinds[task.regression]}, the model learns {kinds[not task.regression]} (loss: {loss})"
        raise DataError(what, where, "use the model's own task file")
    is_row = len(input_shape) == 3 and input_shape[1] == 1 and shape == (input_shape[0], input_shape[2])
    if (shape != input_shape and not is_row) or task.ways != ways:
        counted = "numbers per target" if task.regression else "classes"
        what = f"has {task.ways} {counted} and samples of shape {shape}, the model {ways} and {input_shape}"
        raise DataError(what, where, "use the model's own task file")
    if task.support_x.dtype != np.dtype(encoding):
        what = f"has samples of {task.support_x.dtype}, the model takes {encoding}"
        raise DataError(what, where, f"write the task file with {encoding} samples")
    support_x, query_x = (x.reshape(len(x), *input_shape) for x in (task.support_x, task.query_x))
    return replace(task, support_x=support_x, query_x=query_x)


def _is_running(pid: int) -> bool:
    """Whether a process exists; True where that cannot be asked harmlessly (Windows)."""
    if os.name != "posix":
        return True
    if not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
