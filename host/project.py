"""A generated project as the host tool needs it: manifest, model, and the port its board was started on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

from pmeta.codegen.errors import ConfigError, DataError, LinkError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.modelfile import sha256_of
from pmeta.codegen.support import support_sha256
from pmeta.codegen.taskfile import Task, fitting


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
        task = fitting(task, manifest.input_shape, encoding, manifest.ways, manifest.loss)
        where = f"task '{task.name}'"
        if manifest.support == "ram" and len(task.support_x) > manifest.support_samples:
            what = f"has {len(task.support_x)} support samples, the device keeps {manifest.support_samples} at most"
            raise DataError(what, where, "generate with a larger --support-samples")
        if manifest.support == "flash" and support_sha256(task) != manifest.support_sha256:
            raise DataError("has another support set than lies in flash", where, "use the task it was generated with")
        return task


def open_project(folder: Path) -> Project:
    """Reads the manifest; DataError if the folder is no project."""
    return Project(folder, Manifest.load(folder / "manifest.json"))


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
