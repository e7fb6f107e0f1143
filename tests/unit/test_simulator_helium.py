"""binary32-helium/1 in the simulator: against scalar loops with exact arithmetic, and where it differs from strict."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Conv, Window
from pmeta.host.simulator import helium
from pmeta.host.simulator.arithmetic import canonical_bytes
from pmeta.host.simulator.operators import conv
from pmeta.host.simulator.operators.operator import Gamma

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

NORMAL = 2.0**-126  # the smallest normal number

WINDOWS = [
    Window((3, 3), pad_before=(1, 1), pad_after=(1, 1)),
    Window((2, 3), stride=(2, 1), pad_before=(0, 2), pad_after=(1, 0)),
    Window((1, 2), stride=(1, 2), dilation=(1, 2), pad_before=(0, 4), pad_after=(0, 0)),  # outputs without a tap
]


def flushed(exact: float) -> float:
    """A result before rounding, or an operand: zero where it is smaller than any normal number."""
    return math.copysign(0.0, exact) if abs(exact) < NORMAL else float(np.float32(exact))


def added(total: float, a: float, b: float) -> float:
    """total + a · b. Products and sums of float32 are exact in float64, or as good as for one more rounding."""
    return flushed(flushed(total) + flushed(flushed(a) * flushed(b)))


def numbers(rng: np.random.Generator, exponent: int, *shape: int) -> Float32Array:
    """Of about 2^exponent, with zeros of both signs, and where that is small enough with subnormal numbers."""
    drawn = (rng.normal(size=shape) * 2.0 ** rng.integers(exponent - 3, exponent + 3, shape)).astype(np.float32)
    odd = rng.choice(np.array([0.0, -0.0, 1e-39, -1e-40, NORMAL], np.float32), shape)
    return np.where(rng.random(shape) < 0.2, odd, drawn)


def taps(window: Window, size: tuple[int, int], outputs: tuple[int, int]) -> list[tuple[int, ...]]:
    """(row, column of the output; i, j in the kernel; row, column of the input), those inside only."""
    found = []
    for oh, ow, i, j in product(*map(range, (*outputs, *window.kernel))):
        row = oh * window.stride[0] + i * window.dilation[0] - window.pad_before[0]
        column = ow * window.stride[1] + j * window.dilation[1] - window.pad_before[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            found.append((oh, ow, i, j, row, column))
    return found


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("exponents", [(-63, -63), (-126, 0), (0, -126)], ids=str)
def test_convolution_as_scalar_loops(window: Window, exponents: tuple[int, int]) -> None:
    """Either all products are about as small as normal numbers can be, or one factor is: of x and g(y), or of w."""
    rng = np.random.default_rng(1)
    x, w, b = (
        numbers(rng, exponents[0], 4, 6, 5),
        numbers(rng, exponents[1], 6, 2, *window.kernel),
        numbers(rng, -126, 6),
    )
    layer = Conv("conv", "x", "y", "weight", "bias", 6, window, 2)
    operator = conv.HeliumConvOperator()
    y, _ = operator.forward(layer, {"weight": w, "bias": b}, x)
    gy = numbers(rng, -126 - exponents[1], *y.shape)
    fw, bw = np.array([1, 0, 2, 1e-39], np.float32), numbers(rng, 0, 6)
    start = numbers(rng, -126, *w.shape)
    kept = fw[:, None, None] * x
    total = operator.contribution(layer, kept, gy, Gamma(fw, bw), "weight").added_to(start)

    expected_y = np.repeat(b, y[0].size).reshape(y.shape)
    expected_gx, d = np.zeros_like(x), np.zeros_like(w)
    inside = taps(window, (6, 5), y.shape[1:])
    for f, c in product(range(6), range(2)):
        of = f // 3 * 2 + c  # the channel in x
        for oh, ow, i, j, row, column in inside:
            at, tap = (f, oh, ow), (f, c, i, j)
            expected_y[at] = added(expected_y[at], w[tap], x[of, row, column])
            d[tap] = added(d[tap], gy[at], kept[of, row, column])
        for i, j in product(*map(range, window.kernel)):
            for oh, ow, *_, row, column in (tap for tap in inside if tap[2:4] == (i, j)):
                at = (of, row, column)
                expected_gx[at] = added(expected_gx[at], w[f, c, i, j], gy[f, oh, ow])
    expected_total = start.copy()
    for f, c in product(range(6), range(2)):
        if bw[f] != 0 and fw[f // 3 * 2 + c] != 0:
            for i, j in product(*map(range, window.kernel)):
                expected_total[f, c, i, j] = added(start[f, c, i, j], bw[f], d[f, c, i, j])

    gx = operator.input_gradient(layer, {"weight": w}, x, gy)
    for found, expected in ((y, expected_y), (gx, expected_gx), (total, expected_total)):
        assert canonical_bytes(found) == canonical_bytes(expected)
    strict = conv.ConvOperator()
    assert canonical_bytes(strict.forward(layer, {"weight": w, "bias": b}, x)[0]) != canonical_bytes(y)
    assert canonical_bytes(strict.input_gradient(layer, {"weight": w}, x, gy)) != canonical_bytes(gx)
    assert canonical_bytes(strict.contribution(layer, kept, gy, Gamma(fw, bw), "weight").added_to(start)) != (
        canonical_bytes(total)
    )


def test_size_before_rounding_counts() -> None:
    """(1 + 2⁻¹²)·(1 − 2⁻¹²)·2⁻¹²⁶ lies below the smallest normal number, and rounds to it."""
    a = np.array([1 + 2.0**-12], np.float32)
    b = np.array([(1 - 2.0**-12) * NORMAL * 2**60], np.float32)
    scale = np.float32(2.0**-60)
    assert abs(float(a[0]) * float(b[0]) * 2.0**-60) < NORMAL
    assert (a * scale) * b == np.float32(NORMAL)
    assert canonical_bytes(helium.product(a * scale, b)) == canonical_bytes(np.zeros(1, np.float32))
    assert helium.product(np.array([1.0], np.float32), np.array([NORMAL], np.float32)) == np.float32(NORMAL)


def test_what_is_not_small_passes() -> None:
    some = np.array([1.5, -3e38, np.inf, -np.inf, np.nan, 0.0, -0.0, NORMAL, -NORMAL], np.float32)
    a, b = np.meshgrid(some, some[:-2])
    for found, expected in ((helium.product(a, b), a * b), (helium.total(a, b), a + b)):
        normal = ~((np.abs(expected) < NORMAL) & (expected != 0))
        assert canonical_bytes(found[normal]) == canonical_bytes(expected[normal])
        assert not np.any((np.abs(found) < NORMAL) & (found != 0))


def test_zeros_keep_their_sign() -> None:
    small = np.array([1e-40, -1e-40], np.float32)
    assert np.signbit(helium.without_subnormals(small)).tolist() == [False, True]
    assert np.signbit(helium.product(small, np.ones(2, np.float32))).tolist() == [False, True]
    assert np.signbit(helium.total(small, np.full(2, -0.0, np.float32))).tolist() == [False, True]
