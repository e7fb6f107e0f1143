"""Shared arithmetic: sums in lanes, exp, log and square root, C ≡ simulator by bytes.

How far exp and log lie from the exact values is measured by `benchmarks/exp_log_error.py` and held by
`tests/unit/test_simulator_arithmetic.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.host.simulator.arithmetic import exp32, lane_sum, log32, softmax
from tests.differential.operators.comparison import assert_same, examples, flavours, generators, values
from tests.kernels import call, in_place, scalar_function, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

EVERY = 4099  # prime, so that all parts of the mantissa are met
# Where the functions change course: zeros, subnormals, infinities, NaN; exp's two thresholds; √½, 1 and √2 for log.
CORNERS = (
    *(0x00000000, 0x00800000, 0x7F800000, 0x7FC00000, 0x80000000, 0x80800000, 0xFF800000, 0xFFC00000),
    *(0x42B17217, 0xC2CFF1B4, 0x3F3504F3, 0x3F800000, 0x3FB504F3),
)


def arguments() -> npt.NDArray[np.float32]:
    """Bit patterns from all over, and all those around every corner."""
    sweep = np.arange(0, 1 << 32, EVERY, dtype=np.uint64)
    around = np.arange(-512, 513, dtype=np.int64)
    corners = [(corner + around) % (1 << 32) for corner in CORNERS]
    return np.concatenate([sweep, *corners]).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize(("kernel", "simulated"), [("pmeta_exp", exp32), ("pmeta_log", log32), ("pmeta_sqrt", np.sqrt)])
def test_functions(kernel: str, simulated: Callable[..., npt.NDArray[np.float32]]) -> None:
    x = arguments()
    function = scalar_function(kernel)
    assert_same(np.array([function(value) for value in x.tolist()], np.float32), simulated(x))


@examples
@given(generators, st.one_of(st.integers(1, 40), st.integers(1, 1000)), flavours)
def test_lane_sum(rng: np.random.Generator, count: int, flavour: str) -> None:
    x, y, mean = (values(rng, n, flavour=flavour) for n in (count, count, 1))
    d = x - mean
    assert_same(np.float32([call("pmeta_lane_sum", x, count)]), lane_sum(x[None]))
    assert_same(np.float32([call("pmeta_lane_sum_of_squares", x, count, mean[0])]), lane_sum((d * d)[None]))
    assert_same(np.float32([call("pmeta_lane_sum_of_products", x, y, count)]), lane_sum((x * y)[None]))


@examples
@given(generators, st.integers(1, 100), flavours)
def test_exp_sum(rng: np.random.Generator, count: int, flavour: str) -> None:
    x = values(rng, count, flavour=flavour)
    exponentials, maximum = in_place(x), unwritten(1)
    total = call("pmeta_exp_sum", exponentials, count, maximum)
    _, expected_maximum, expected_total = softmax(x)
    assert_same(maximum, np.float32([expected_maximum]))
    assert_same(np.float32([total]), np.float32([expected_total]))
    assert_same(exponentials, exp32(x - expected_maximum))
