"""Task files: few-shot tasks as the device meets them, in one .npz that trainer and host tool share.

Arrays of task number i (0, 1, ...) are named `<i>/support_x`, `<i>/support_y`, `<i>/query_x`, `<i>/query_y`,
`<i>/class_names` and `<i>/name`. The same tasks give the same bytes.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import check_regular, replacement

UInt8Array = npt.NDArray[np.uint8]

MAX_FILE_BYTES = 1 << 30  # of the archive, and of everything it unpacks to
MAX_TASKS = 100_000
ARRAYS = ("support_x", "support_y", "query_x", "query_y", "class_names", "name")
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold; fixed for equal bytes


@dataclass(frozen=True)
class Task:
    """One few-shot task; arrays are read-only. Labels index `class_names`, whose length is the ways."""

    support_x: UInt8Array  # (N, C, H, W)
    support_y: UInt8Array  # (N,)
    query_x: UInt8Array  # (Q, C, H, W)
    query_y: UInt8Array  # (Q,)
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
        if any(getattr(self, key).dtype != np.uint8 for key in ARRAYS[:4]):
            return "samples and labels must be uint8"
        if self.support_x.ndim != 4 or self.query_x.ndim != 4 or self.support_x.shape[1:] != self.query_x.shape[1:]:
            return f"samples of shapes {self.support_x.shape} and {self.query_x.shape} are not (N, C, H, W) alike"
        if self.support_x.size == 0 or self.query_x.size == 0:
            return "has no samples"
        for x, y in ((self.support_x, self.support_y), (self.query_x, self.query_y)):
            if y.shape != x.shape[:1]:
                return f"has labels of shape {y.shape} for {x.shape[0]} samples"
            if int(y.max()) >= len(self.class_names):
                return f"has label {int(y.max())}, but {len(self.class_names)} classes"
        return None

    @property
    def ways(self) -> int:
        return len(self.class_names)


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


def _npy_bytes(value: UInt8Array | str | tuple[str, ...]) -> bytes:
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
    if dtype != np.uint8 or fortran_order or len(data) != int(np.prod(shape, dtype=object)):
        raise ValueError("not an array of bytes, or cut off")
    return np.frombuffer(data, np.uint8).reshape(shape)
