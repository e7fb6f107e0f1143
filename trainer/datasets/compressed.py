"""Reads small files that may be gzip-compressed, in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Final

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file

_GZIP_MAGIC: Final = b"\x1f\x8b"


def read_maybe_gzip(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a file, decompressed where it is gzip. DataError if damaged or over `max_bytes`."""
    try:
        content = read_file(path, max_bytes)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "check the path and the file") from error
    return gunzip(content, max_bytes, str(path))


def gunzip(content: bytes, max_bytes: int, where: str) -> bytes:
    """Returns `content`, decompressed where it is gzip. DataError if damaged or over `max_bytes`."""
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            plain = stream.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("is a damaged gzip file", where, "download it again") from error
    if len(plain) > max_bytes:
        raise DataError(f"decompresses to more than {max_bytes >> 20} MiB", where, "download it again")
    return plain
