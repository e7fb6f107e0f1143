"""A model as the device runs it: its generated C, compiled for this computer and called on the same tasks.

The C is what `pmeta-gen --board native` writes into lib/pmeta_model. Nothing but the model's numbers goes into it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import native_flags
from pmeta.codegen.errors import BuildError
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.project.c_source import Title, library_sources
from pmeta.codegen.project.templates import files_in
from pmeta.codegen.taskfile import Samples, Task
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.export import from_model
from pmeta.trainer.intervals import mean_and_interval
from pmeta.trainer.objective import query_logits
from pmeta.trainer.parallel import in_processes

LIBRARY = "libpmeta_model.so"
TITLE = Title(title="evaluation", command="pmeta-train evaluate", model_sha256="0" * 64, firmware_id="0" * 32)


@dataclass(frozen=True)
class DeployedEvaluation:
    """The same tasks through C and through PyTorch; accuracies after adaptation, in 0..1, with 95 % intervals."""

    tasks: int
    before: float  # through C, before adaptation
    after: float
    after_interval: float
    torch_after: float
    difference: float  # after − torch_after
    tasks_that_differ: int  # with at least one query sample that is classified otherwise
    queries_that_differ: int
    queries_in_all: int  # of all tasks


def evaluate_deployed(
    model: Model, tasks: Iterable[Task], folder: Path, workers: int, advance: Callable[[int], None] | None = None
) -> DeployedEvaluation:
    """Build the library in `folder`, adapt to every task in C and in PyTorch, and compare what they predict.

    All tasks have the same sizes. Raises BuildError where there is no C compiler, or it fails.
    """
    library = build_library(model, folder)
    rows = []
    for row in in_processes(_comparison, (model, library), tasks, workers):
        rows.append(row)
        if advance is not None:
            advance(1)
    before, after, torch_after, differ, queries = np.array(rows, np.float64).T
    mean, interval = mean_and_interval(after)
    return DeployedEvaluation(
        tasks=len(rows),
        before=float(before.mean()),
        after=mean,
        after_interval=interval,
        torch_after=float(torch_after.mean()),
        difference=float((after - torch_after).mean()),
        tasks_that_differ=int((differ > 0).sum()),
        queries_that_differ=int(differ.sum()),
        queries_in_all=int(queries.sum()),
    )


def build_library(model: Model, folder: Path) -> Path:
    """Generate the model's C into `folder` and compile it; the path of the shared library."""
    sources = library_sources(make_plan(model), TITLE) | files_in("kernels", (".c", ".h"))
    for name, content in sources.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    files = sorted(name for name in sources if name.endswith((".c", ".S")))
    flags = [flag for flag in native_flags() if not flag.startswith("-W")]  # another compiler may have more warnings
    command = [_compiler(), *flags, "-fPIC", "-shared", "-o", LIBRARY, *files, "-lm"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        problem = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:200])
        raise BuildError(f"the C compiler failed: {problem}", command[0], "try another one: set CC")
    return folder / LIBRARY


def _compiler() -> str:
    """The computer's C compiler: $CC, or the first known one."""
    named = os.environ.get("CC")
    found = next((path for name in ([named] if named else ["cc", "gcc", "clang"]) if (path := shutil.which(name))), "")
    if not found:
        raise BuildError("no C compiler was found", named or "cc", "install gcc or clang, or set CC")
    return found


class DeployedModel:
    """A library of `build_library`. Its state is the library's: one model per process."""

    def __init__(self, model: Model, library: Path) -> None:
        self._adaptation = model.adaptation
        self._c = ctypes.CDLL(str(library))

    def predictions(self, task: Task) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Classes of the query samples, (Q,), before and after adaptation to the support set."""
        self._c.pmeta_reset()
        before = self._classes(task.query_x)
        logits, loss = self._logits(), ctypes.c_float()
        for _ in range(self._adaptation.steps):
            for sample, label in zip(task.support_x, task.support_y, strict=True):
                raw, target = _bytes(sample), ctypes.c_uint32(int(label))
                _check(self._c.pmeta_adapt_sample(raw, target, _pointer(logits), ctypes.byref(loss)))
            _check(self._c.pmeta_end_step(ctypes.c_uint32(len(task.support_x))))
        return before, self._classes(task.query_x)

    def _classes(self, samples: Samples) -> npt.NDArray[np.int64]:
        logits, classes = self._logits(), np.empty(len(samples), np.int64)
        for number, sample in enumerate(samples):
            self._c.pmeta_predict(_bytes(sample), _pointer(logits))
            classes[number] = logits.argmax()
        return classes

    def _logits(self) -> npt.NDArray[np.float32]:
        return np.empty(self._adaptation.ways, np.float32)


def _comparison(model: Model, library: Path) -> Callable[[Task], tuple[float, ...]]:
    """In a worker: of a task, (C's accuracy before, after, PyTorch's after, queries that differ, queries)."""
    device = torch.device("cpu")
    inner, meta = from_model(model, device)
    deployed = DeployedModel(model, library)

    def compare(task: Task) -> tuple[float, ...]:
        before, after = deployed.predictions(task)
        batch = task_batch([task], model.adaptation.encoding, device, model.adaptation.ways)
        in_torch = query_logits(inner, meta, batch, model.adaptation.sample_batch)[1][0].argmax(-1).numpy()
        accuracies = [float((classes == task.query_y).mean()) for classes in (before, after, in_torch)]
        return *accuracies, float((after != in_torch).sum()), float(len(after))

    return compare


def _bytes(sample: npt.NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(sample).tobytes()


def _pointer(array: npt.NDArray[np.float32]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _check(status: int) -> None:
    if status != 0:
        raise BuildError(f"the generated C refused a sample (status {status})", "evaluation", "report this as a bug")
