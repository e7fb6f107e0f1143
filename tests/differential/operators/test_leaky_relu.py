"""LeakyRelu: C kernels ≡ simulator by bytes, with the mask as it is packed; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import LeakyRelu
from pmeta.host.simulator.operators import leaky_relu
from tests.differential.operators.comparison import (
    ORDINARY,
    assert_close,
    assert_same,
    autograd,
    examples,
    flavours,
    generators,
    smooth,
    unpacked,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

usual_alphas = st.sampled_from([0.01, 0.3, 1.0, -0.7]).map(np.float32)
alphas = usual_alphas | st.sampled_from([0.0, -0.0, 1e-42, 3e38]).map(np.float32)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("flavour", [ORDINARY, "tiny", "special"])
def test_masks_around_a_word(count: int, flavour: str) -> None:
    assert_same_leaky_relu(np.random.default_rng(count), count, np.float32(0.01), flavour)


@examples
@given(generators, st.integers(1, 300), alphas, flavours)
def test_any_size(rng: np.random.Generator, count: int, alpha: np.float32, flavour: str) -> None:
    assert_same_leaky_relu(rng, count, alpha, flavour)


def assert_same_leaky_relu(rng: np.random.Generator, count: int, alpha: np.float32, flavour: str) -> None:
    """Forward with and without mask, the mask itself, and the input gradient."""
    constants = LeakyRelu("leaky", "x", "y", float(alpha)).shape_constants((count,))
    x, gy = values(rng, count, flavour=flavour), values(rng, count, flavour=flavour)
    expected, scaled = leaky_relu.forward(x, alpha)
    y, alone, mask, g = in_place(x), in_place(x), unwritten(-(-count // 32), dtype=np.uint32), in_place(gy)
    call("pmeta_leaky_relu_forward", constants, y, mask)
    assert_same(y, expected)
    assert np.array_equal(unpacked(mask.array, count), ~scaled)  # set where it passes
    call("pmeta_leaky_relu_forward", constants, alone, None)
    assert_same(alone, expected)
    call("pmeta_leaky_relu_input_gradient", constants, mask.array, g)
    assert_same(g, leaky_relu.input_gradient(gy, scaled, alpha))


def test_zeros_keep_their_sign_and_nan_passes() -> None:
    x = np.array([-2, -0.0, 0.0, 2, np.nan, -np.inf, np.inf, -1e-45], np.float32)
    y, scaled = leaky_relu.forward(x, np.float32(0.25))
    assert_same(y, np.array([-0.5, -0.0, 0.0, 2, np.nan, -np.inf, np.inf, -0.0], np.float32))
    assert scaled.tolist() == [True, True, True, False, False, True, False, True]
    gy = np.full(8, 4, np.float32)
    assert leaky_relu.input_gradient(gy, scaled, np.float32(0.25)).tolist() == [1, 1, 1, 4, 4, 1, 4, 1]


def test_alpha() -> None:
    def read(**attributes: float) -> LeakyRelu:
        return LeakyRelu.from_onnx(OnnxNode("LeakyRelu", "leaky", ("x",), ("y",), attributes, {}))

    assert read().alpha == np.float32(0.01)
    assert read(alpha=-0.5).alpha == -0.5
    for alpha in (np.nan, np.inf, 0.1):  # 0.1 is not a float32
        with pytest.raises(ModelError, match=r"node 'leaky': alpha = .*; use a finite float32 value"):
            read(alpha=alpha)


@examples
@given(generators, st.integers(1, 300), usual_alphas)
def test_pytorch(rng: np.random.Generator, count: int, alpha: np.float32) -> None:
    """One product, so one rounding."""

    def leaky(torch: Any, x: Any) -> Any:
        return torch.nn.functional.leaky_relu(x, float(alpha))

    x, gy = smooth(rng, count), smooth(rng, count)
    y, scaled = leaky_relu.forward(x, alpha)
    exact, (exact_gx,) = autograd(leaky, [x], gy)
    assert_close(y, exact, 1, np.abs(exact).max())
    assert_close(leaky_relu.input_gradient(gy, scaled, alpha), exact_gx, 1, np.abs(exact_gx).max())
