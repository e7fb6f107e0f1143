"""Gemm: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.operators import Gemm
from pmeta.host.simulator.operators import gemm
from pmeta.host.simulator.operators.operator import Gamma
from tests.differential.operators.comparison import (
    accumulator,
    assert_accumulates,
    assert_close,
    assert_same,
    autograd,
    examples,
    flavours,
    gamma,
    generators,
    kept_rows,
    smooth,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

sizes = st.one_of(st.sampled_from([1, 7, 8, 9]), st.integers(1, 130))


def node(features: int) -> Gemm:
    return Gemm("fc", "x", "y", "weight", "bias", features)


@examples
@given(generators, sizes, sizes, st.booleans(), flavours)
def test_forward(rng: np.random.Generator, channels: int, features: int, has_bias: bool, flavour: str) -> None:
    x, w = values(rng, channels, flavour=flavour), values(rng, features, channels, flavour=flavour)
    b = values(rng, features, flavour=flavour) if has_bias else None
    y = unwritten(features)
    call("pmeta_gemm_forward", node(features).shape_constants(x.shape), x, w, b, y)
    assert_same(y, gemm.forward(x, w, b))


@examples
@given(generators, sizes, sizes, flavours)
def test_input_gradient(rng: np.random.Generator, channels: int, features: int, flavour: str) -> None:
    w, gy = values(rng, features, channels, flavour=flavour), values(rng, features, flavour=flavour)
    gx = unwritten(channels)
    call("pmeta_gemm_input_gradient", node(features).shape_constants((channels,)), w, gy, gx)
    assert_same(gx, gemm.input_gradient(gy, w))


@examples
@given(generators, sizes, sizes, flavours)
def test_weight_gradient(rng: np.random.Generator, channels: int, features: int, flavour: str) -> None:
    layer = node(features)
    x, gy = values(rng, channels, flavour=flavour), values(rng, features, flavour=flavour)
    fw, bw = gamma(rng, channels), gamma(rng, features)
    start = accumulator(rng, features, channels, flavour=flavour)
    kept, stored = (None, x) if fw is None else kept_rows(x, fw, weigh=True)
    grad = in_place(start)
    seen = gemm.GemmOperator().kept_for_weights(x, lambda x: x, fw, of_sample=False)
    call("pmeta_gemm_weight_gradient", layer.shape_constants(x.shape), kept, stored, gy, bw, grad)
    assert_accumulates(grad, start, gemm.GemmOperator().contribution(layer, seen, gy, Gamma(fw, bw), "weight"))


@examples
@given(generators, sizes, sizes)
def test_pytorch(rng: np.random.Generator, channels: int, features: int) -> None:
    def linear(torch: Any, x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.linear(x, w, b)

    inputs = [smooth(rng, channels), smooth(rng, features, channels), smooth(rng, features)]
    x, w, b = inputs
    gy = smooth(rng, features)
    exact, (exact_gx, exact_gw, _) = autograd(linear, inputs, gy)
    # The same sums over magnitudes: what the error bounds of sums grow with.
    size_y, (size_gx, _, _) = autograd(linear, [np.abs(array) for array in inputs], np.abs(gy))
    assert_close(gemm.forward(x, w, b), exact, channels + 1, size_y.max())
    assert_close(gemm.input_gradient(gy, w), exact_gx, features + 1, size_gx.max())
    assert_close(gemm.weight_gradient(gy, x), exact_gw, 1, np.abs(exact_gw).max())
