"""Files in and out: inputs may be anything (a device that never ends, gigabytes), outputs are written whole or not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG


def check_regular(path: Path, max_bytes: int) -> None:
    """OSError unless `path` is a regular file of at most `max_bytes`; its `strerror` completes "cannot be read"."""
    status = path.stat()
    if S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes >> 20} MiB", str(path))


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file; OSError as `check_regular`."""
    check_regular(path, max_bytes)
    with path.open("rb") as stream:
        return stream.read(max_bytes)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end of the block, unless that failed.

    OSError where `path` is anything but a regular file: a device, above all, must not become a file.
    """
    if path.exists():
        check_regular(path, path.stat().st_size)
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
