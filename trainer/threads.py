"""How the threads of PyTorch wait for each other on a CPU."""

from __future__ import annotations

import os

SPINS = 1000  # some 20 µs, by estimate


def spin_briefly() -> None:
    """Let threads spin for a moment before they sleep; says it before PyTorch is loaded, to GCC's OpenMP alone.

    Many operations of an outer step take some 50 µs. Threads that sleep at once are woken thousands of times in a step:
    on two cores that is slower than one thread. Threads that spin as long as is usual are many times slower on a
    machine that is busy with other work. What the environment says already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
