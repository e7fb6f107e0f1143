"""The sample as the first map: C kernel ≡ simulator by bytes; simulator ≈ float64. It has no gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import InputEncoding
from pmeta.host.simulator.sample_pass import decode
from tests.differential.operators.comparison import (
    assert_close,
    assert_same,
    examples,
    flavours,
    generators,
    smooth,
    values,
)
from tests.kernels import call, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

shapes = st.one_of(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(st.integers(1, 40)))


@examples
@given(generators, shapes, flavours)
def test_kernel(rng: np.random.Generator, shape: tuple[int, ...], flavour: str) -> None:
    sample = rng.integers(0, 256, shape, np.uint8)
    scale, offset = (values(rng, shape[0], flavour=flavour) for _ in range(2))
    x = unwritten(*shape)
    call("pmeta_decode_uint8", shape[0], sample[0].size, sample, scale, offset, x)
    assert_same(x, decode(sample, InputEncoding("uint8", tuple(scale.tolist()), tuple(offset.tolist()))))


def test_every_byte() -> None:
    sample, scale, offset = np.arange(256, dtype=np.uint8)[None], np.float32([1 / 255]), np.float32([-0.5])
    x = unwritten(1, 256)
    call("pmeta_decode_uint8", 1, 256, sample, scale, offset, x)
    assert_same(x, decode(sample, InputEncoding("uint8", tuple(scale.tolist()), tuple(offset.tolist()))))


@examples
@given(generators, shapes)
def test_float64(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    sample = rng.integers(0, 256, shape, np.uint8)
    scale, offset = smooth(rng, shape[0]), smooth(rng, shape[0])
    x = decode(sample, InputEncoding("uint8", tuple(scale.tolist()), tuple(offset.tolist())))
    per_channel = (-1, *[1] * (sample.ndim - 1))
    product = sample * scale.astype(np.float64).reshape(per_channel)
    exact = product + offset.astype(np.float64).reshape(per_channel)
    assert_close(x, exact, 2, float(np.abs(product).max() + np.abs(offset).max()))
