"""Arrays of an .npz file: mapped into memory where that can be, and every size checked before anything is read."""

from __future__ import annotations

import math
import shutil
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import replacement
from pmeta.trainer.datasets.cache import cached, file_states

_TODO: Final = "write it again with numpy.savez"
_IN_MEMORY: Final = 256 << 20  # bytes up to which a compressed array is unpacked into memory, not into the cache
_LARGEST: Final = 1 << 38  # bytes of an array
_LOCAL_HEADER: Final = struct.Struct("<26xHH")  # of a member of a zip file; lengths of its name and extra field
_DAMAGE: Final = (
    *(OSError, ValueError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, RecursionError, tokenize.TokenError),  # from numpy, which reads headers as Python literals
    RuntimeError,  # from zipfile: encrypted
)


def npz_names(path: Path) -> frozenset[str]:
    """Returns the names of the arrays in a file. Raises DataError if it is missing or no zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except _DAMAGE as error:
        raise DataError("is missing or no .npz file", str(path), _TODO) from error


def npz_array(path: Path, name: str) -> NDArray[Any]:
    """Returns one array: a memory map of the file if the array is not compressed, of the cache if it is large.

    Raises DataError if there is no such array, it holds Python objects, or the file is damaged.
    """
    where = f"{path}: {name}"
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path, f"{name}.npy", where)
    except KeyError as error:
        raise DataError("is missing", where, "add the array") from error
    except _DAMAGE as error:
        raise DataError("is damaged", where, _TODO) from error


def _read(archive: zipfile.ZipFile, path: Path, member_name: str, where: str) -> NDArray[Any]:
    member = archive.getinfo(member_name)
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream)
        header_size = stream.tell()
    if dtype.hasobject:
        raise DataError("holds Python objects", where, "store numbers, or text as an array of str")
    size = math.prod(shape) * dtype.itemsize
    if size != member.file_size - header_size or size > _LARGEST:
        raise ValueError("the array is not as large as its header says")
    if size == 0:
        return np.empty(shape, dtype)
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:  # neither compressed nor encrypted
        start = _content_start(path, member) + header_size
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    if size <= _IN_MEMORY:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def unpack(folder: Path) -> None:
        with archive.open(member) as source, (folder / "array.npy").open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    entry = cached(path.stem, ("npz", file_states([path]), member_name), unpack)
    array: NDArray[Any] = np.load(entry / "array.npy", mmap_mode="r", allow_pickle=False)
    return array


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of a .npy stream, which is left at the first element."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of the .npy format")


def _content_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the content of a member begins. Its local header may have other lengths than the directory."""
    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    start = int(member.header_offset + _LOCAL_HEADER.size + name_length + extra_length)
    if start + member.file_size > path.stat().st_size:
        raise ValueError("runs past the end")
    return start


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes a compressed .npz whose bytes depend on the arrays alone (fixed dates), in one step."""
    with replacement(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
