"""Freed memory is used again: on a CPU, an outer step takes and frees hundreds of megabytes."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees; False where the C library cannot be told.

    glibc gives blocks of more than 32 MiB back to the system at once and gets the next ones page by page, which takes
    longer than what is computed in them: an outer step of omniglot-20way-1shot.toml 0.53 s instead of 0.33 s.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS; Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
