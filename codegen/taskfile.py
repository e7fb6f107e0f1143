"""Task files: few-shot tasks as the device meets them, in one .npz that trainer and host tool share.

Arrays of task number i (0, 1, ...) are named `<i>/support_x`, `<i>/support_y`, `<i>/query_x`, `<i>/query_y`,
`<i>/class_names` and `<i>/name`. Samples are uint8 or float32; what they teach is a label each, uint8, or a row of
numbers each, float32. The names are UTF-8 as uint8, one line each. The same tasks give the same bytes.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import LossHead
from pmeta.codegen.errors import DataError
from pmeta.codegen.files import check_regular, replacement

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

MAX_FILE_BYTES = 1 << 30  # of the archive, and of everything it unpacks to
MAX_TASKS = 100_000
DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))
ARRAYS = ("support_x", "support_y", "query_x", "query_y", "class_names", "name")
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold; fixed for equal bytes


@dataclass(frozen=True)
class Task:
    """One few-shot task; arrays are read-only.

    Samples have shape (C, H, W), (C, L) or (C,). Labels index `class_names`, whose length is the ways; in a task of
    numbers, `class_names` has the name of each number of a target.
    """

    support_x: Samples  # (N, ...)
    support_y: Samples  # labels (N,) uint8, or targets (N, ways) float32
    query_x: Samples  # (Q, ...)
    query_y: Samples  # as support_y
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise DataError(problem, f"task '{self.name}'", "write the task file again")
        for key in ARRAYS[:4]:
            array = np.array(getattr(self, key), order="C")
            array.setflags(write=False)
            object.__setattr__(self, key, array)

    def _problem(self) -> str | None:
        if not 1 <= len(self.class_names) <= 256:
            return f"has {len(self.class_names)} classes, 1 to 256 are possible"
        if not all(text.isprintable() for text in (self.name, *self.class_names)):
            return "has a name with control characters"
        return self._samples_problem() or self._targets_problem()

    def _samples_problem(self) -> str | None:
        one, other = self.support_x, self.query_x
        if one.dtype != other.dtype or one.dtype not in DTYPES:
            return "samples must be uint8, or float32, all of them"
        if not 2 <= one.ndim <= 4 or one.shape[1:] != other.shape[1:]:
            return f"samples of shapes {one.shape} and {other.shape} are not (N, C, H, W), (N, C, L) or (N, C) alike"
        if one.size == 0 or other.size == 0:
            return "has no samples"
        if not all(np.isfinite(x).all() for x in (one, other)):
            return "has samples with numbers that are not finite"
        return None

    def _targets_problem(self) -> str | None:
        ways = len(self.class_names)
        if self.support_y.dtype != self.query_y.dtype or self.support_y.dtype not in DTYPES:
            return "labels must be uint8, targets float32, in support and query set alike"
        for x, y in ((self.support_x, self.support_y), (self.query_x, self.query_y)):
            if self.regression and y.shape != (x.shape[0], ways):
                return f"has targets of shape {y.shape} for {x.shape[0]} samples and {ways} names of numbers"
            if self.regression and not np.isfinite(y).all():
                return "has targets with numbers that are not finite"
            if not self.regression and y.shape != x.shape[:1]:
                return f"has labels of shape {y.shape} for {x.shape[0]} samples"
            if not self.regression and int(y.max()) >= ways:
                return f"has label {int(y.max())}, but {ways} classes"
        return None

    @property
    def ways(self) -> int:
        """Classes, or numbers in a target."""
        return len(self.class_names)

    @property
    def regression(self) -> bool:
        """Whether samples teach numbers instead of classes."""
        return self.support_y.dtype == np.float32


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


def save_tasks(tasks: Sequence[Task], path: Path) -> None:
    """Write tasks to `path`, replacing it in one step; raises DataError where it cannot be written."""
    try:
        with replacement(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for number, task in enumerate(tasks):
                for key in ARRAYS:
                    entry = zipfile.ZipInfo(f"{number}/{key}.npy", TIMESTAMP)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, _npy_bytes(getattr(task, key)))
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", str(path), "choose a writable place") from error


def _npy_bytes(value: Samples | str | tuple[str, ...]) -> bytes:
    # Text travels as UTF-8 bytes: numpy's own strings drop trailing zeros and depend on the longest one.
    if isinstance(value, tuple):
        value = "\n".join(value)
    if isinstance(value, str):
        value = np.frombuffer(value.encode(), np.uint8)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def load_tasks(path: Path) -> tuple[Task, ...]:
    """Read a task file; raises DataError where it is missing, damaged or too large."""
    try:
        check_regular(path, MAX_FILE_BYTES)
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_FILE_BYTES:
                raise DataError(f"unpacks to more than {MAX_FILE_BYTES >> 20} MiB", str(path), "split it")
            count = _task_count(archive, path)
            return tuple(_read_task(archive, number) for number in range(count))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, RuntimeError) as error:
        # RuntimeError: an encrypted archive, or (NotImplementedError) an unknown compression
        raise DataError("is not a task file, or is damaged", str(path), "write it again") from error


def _task_count(archive: zipfile.ZipFile, path: Path) -> int:
    """How many tasks the archive holds; refuses names that are not those of a task file."""
    names = archive.namelist()
    pattern = re.compile(rf"(\d{{1,6}})/(?:{'|'.join(ARRAYS)})\.npy")
    matches = [pattern.fullmatch(name) for name in names]
    numbers = {int(match[1]) for match in matches if match}
    complete = len(set(names)) == len(names) == len(numbers) * len(ARRAYS) and all(matches)
    if not complete or not numbers or numbers != set(range(len(numbers))) or len(numbers) > MAX_TASKS:
        raise DataError("does not hold tasks 0, 1, ... completely", str(path), "write it again")
    return len(numbers)


def _read_task(archive: zipfile.ZipFile, number: int) -> Task:
    arrays: dict[str, Any] = {key: _read_array(archive, f"{number}/{key}.npy") for key in ARRAYS}
    names = arrays.pop("class_names").tobytes().decode().split("\n")
    name = arrays.pop("name").tobytes().decode()
    return Task(**arrays, class_names=tuple(names), name=name)


def _read_array(archive: zipfile.ZipFile, entry: str) -> npt.NDArray[Any]:
    """One array; the header's promise is compared with the bytes that are there before anything is allocated."""
    stream = io.BytesIO(archive.read(entry))
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the npy format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    data = stream.read()
    is_text = entry.endswith(("/name.npy", "/class_names.npy"))
    if dtype not in (DTYPES[:1] if is_text else DTYPES) or fortran_order:
        raise ValueError("not an array of bytes or float32")
    if len(data) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError("cut off")
    return np.frombuffer(data, dtype).reshape(shape)
