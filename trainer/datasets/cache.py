"""Keeps what is slow to make (decoded pictures, unpacked arrays) in files, so that it is made once.

The folder is $PMETA_CACHE or ~/.cache/pmeta; it may be deleted at any time. An entry is made under another name and
renamed when it is complete, so that neither Ctrl-C nor a second process leaves half an entry.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pmeta.codegen.errors import DataError

FOLDER: Final = "PMETA_CACHE"  # the environment variable
_VERSION: Final = 1  # of what entries hold; a higher one leaves older entries unused


def cache_folder() -> Path:
    """Returns the folder of all entries, which need not exist yet."""
    return Path(os.environ[FOLDER]) if FOLDER in os.environ else Path.home() / ".cache" / "pmeta"


def file_states(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Returns name, size and time of change of files, to be part of a key: a changed file makes a new entry."""
    return [(str(path.absolute()), status.st_size, status.st_mtime_ns) for path in paths for status in (path.stat(),)]


def entry_of(name: str, key: object) -> Path:
    """Returns the folder of the entry for `key`, which exists only once `cached` has made it.

    name: how the folder's name begins, for people who look into the cache. key: whatever the content depends on; equal
    keys have equal `repr`.
    """
    digest = hashlib.sha256(repr((_VERSION, key)).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / f"{name}-{digest[:32]}"


def cached(name: str, key: object, make: Callable[[Path], None]) -> Path:
    """Returns the folder of the entry for `key`, which `make` fills if it does not exist yet.

    Raises DataError if the cache cannot be written, and whatever `make` raises.
    """
    entry = entry_of(name, key)
    if entry.is_dir():
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", suffix=".part", dir=entry.parent) as folder:
            content = Path(folder) / "content"
            content.mkdir()
            make(content)
            if not entry.is_dir():  # another process may have been quicker
                content.rename(entry)
    except OSError as error:
        if not entry.is_dir():
            what = f"cannot be written ({error.strerror or error})"
            raise DataError(what, str(entry), f"make room there, or set {FOLDER} to another folder") from error
    return entry
