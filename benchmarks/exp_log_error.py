"""Error of the simulator's exp, log, sigmoid and tanh against float64, over every float32 there is.

    python -m benchmarks.exp_log_error            all 2³² bit patterns, some minutes
    python -m benchmarks.exp_log_error --every 97 a sample of them, a few seconds

The unit is one ulp of the exact result: the distance of its two neighbours among float32. Where the exact result is
subnormal or 0, it is the smallest subnormal. The reference, NumPy in float64, is itself good to 10⁻⁸ of this unit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import Progress

from pmeta.host.simulator.arithmetic import exp32, log32
from pmeta.host.simulator.operators import sigmoid, tanh

PATTERNS = 1 << 32
CHUNK = 1 << 20  # patterns at a time
OVERFLOW = 2.0**128 - 2.0**103  # from here on the exact result rounds to infinity
SMALLEST_NORMAL = 2.0**-126
SMALLEST_SUBNORMAL = 2.0**-149

Function = Callable[[npt.ArrayLike], npt.NDArray[np.float32]]
Reference = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass
class Errors:
    """The worst seen so far; errors in ulp, arguments as C99 hexadecimal floats."""

    normal: float = 0.0
    normal_at: str = ""
    subnormal: float = 0.0  # in units of the smallest subnormal
    subnormal_at: str = ""
    wrong_special: int = 0  # NaN, infinity or overflow where the exact result has none, or the reverse


def update(
    errors: Errors, x: npt.NDArray[np.float32], got: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]
) -> None:
    """Take the results for arguments `x` into account."""
    finite = np.abs(exact) < OVERFLOW
    special = np.where(np.isnan(exact), np.isnan(got), got == np.where(exact > 0, np.inf, -np.inf))
    errors.wrong_special += int(np.count_nonzero(~np.where(finite, np.isfinite(got), special)))
    x, got, exact = x[finite], got[finite], exact[finite]
    size = np.abs(exact)
    ulp = np.ldexp(1.0, np.frexp(np.maximum(size, SMALLEST_NORMAL))[1] - 24)
    error = np.abs(got.astype(np.float64) - exact) / ulp
    normal = size >= SMALLEST_NORMAL
    for kind, where in (("normal", normal), ("subnormal", ~normal)):
        masked = np.where(where, error, 0.0)
        if masked.size and masked.max() > getattr(errors, kind):
            setattr(errors, kind, float(masked.max()))
            setattr(errors, f"{kind}_at", float(x[masked.argmax()]).hex())


def sweep(function: Function, reference: Reference, every: int, advance: Callable[[int], None]) -> Errors:
    """Errors of `function` over every `every`-th bit pattern."""
    errors = Errors()
    for start in range(0, PATTERNS, CHUNK * every):
        bits = np.arange(start, min(start + CHUNK * every, PATTERNS), every, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        with np.errstate(all="ignore"):
            update(errors, x, function(x), reference(x.astype(np.float64)))
        advance(bits.size)
    return errors


def main(
    every: Annotated[int, typer.Option(min=1, help="Take only every n-th bit pattern.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Worst error of exp, log, sigmoid and tanh.

    Example: python -m benchmarks.exp_log_error --every 97
    """
    functions: dict[str, tuple[Function, Reference]] = {
        "exp": (exp32, np.exp),
        "log": (log32, np.log),
        "sigmoid": (lambda x: sigmoid.forward(np.asarray(x, np.float32)), lambda x: 1 / (1 + np.exp(-x))),
        "tanh": (lambda x: tanh.forward(np.asarray(x, np.float32)), np.tanh),
    }
    found: dict[str, Errors] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, (function, reference) in functions.items():
            task = progress.add_task(name, total=-(-PATTERNS // every))
            found[name] = sweep(function, reference, every, lambda count, task=task: progress.advance(task, count))
    if as_json:
        print(json.dumps({name: asdict(errors) for name, errors in found.items()}))
        return
    for name, errors in found.items():
        print(
            f"{name}: {errors.normal:.4f} ulp at {errors.normal_at}; subnormal results {errors.subnormal:.4f} "
            f"at {errors.subnormal_at or 'none'}; {errors.wrong_special} wrong special values"
        )


if __name__ == "__main__":
    typer.run(main)
