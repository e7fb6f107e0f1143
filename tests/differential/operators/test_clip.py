"""Clip: C kernels ≡ simulator by bytes, with the mask as it is packed; simulator ≡ PyTorch, where clipping is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import Clip
from pmeta.codegen.operators.clip import LARGEST
from pmeta.host.simulator.operators import clip
from tests.differential.operators.comparison import (
    ORDINARY,
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

pytestmark = pytest.mark.differential

Bounds = tuple[float, float]
bounds = st.sampled_from([(0.0, 6.0), (-0.5, 0.75), (-LARGEST, LARGEST), (0.0, LARGEST), (1.0, 1.0), (-0.0, 2.0**-149)])


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("flavour", [ORDINARY, "tiny", "special"])
def test_masks_around_a_word(count: int, flavour: str) -> None:
    assert_same_clip(np.random.default_rng(count), count, (-0.5, 0.75), flavour)


@examples
@given(generators, st.integers(1, 300), bounds, flavours)
def test_any_size(rng: np.random.Generator, count: int, between: Bounds, flavour: str) -> None:
    assert_same_clip(rng, count, between, flavour)


def assert_same_clip(rng: np.random.Generator, count: int, between: Bounds, flavour: str) -> None:
    """Forward with and without mask, the mask itself, and the input gradient."""
    constants = Clip("clip", "x", "y", *between).shape_constants((count,))
    x, gy = values(rng, count, flavour=flavour), values(rng, count, flavour=flavour)
    expected, clipped = clip.forward(x, *np.float32(between))
    y, alone, mask, g = in_place(x), in_place(x), unwritten(-(-count // 32), dtype=np.uint32), in_place(gy)
    call("pmeta_clip_forward", constants, y, mask)
    assert_same(y, expected)
    assert np.array_equal(unpacked(mask.array, count), ~clipped)  # set where it passes
    call("pmeta_clip_forward", constants, alone, None)
    assert_same(alone, expected)
    call("pmeta_clip_input_gradient", constants, mask.array, g)
    assert_same(g, clip.input_gradient(gy, clipped))


def test_bounds_zeros_and_nan() -> None:
    x = np.array([-np.inf, -1, -0.0, 0.0, 3, 6, np.inf, np.nan], np.float32)
    y, clipped = clip.forward(x, np.float32(0), np.float32(6))
    assert_same(y, np.array([0, 0, 0, 0, 3, 6, 6, np.nan], np.float32))
    assert_same(clip.input_gradient(np.ones(8, np.float32), clipped), np.float32([0, 0, 0, 0, 1, 0, 0, 1]))


def read(inputs: tuple[str, ...], **constants: Any) -> Clip:
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return Clip.from_onnx(OnnxNode("Clip", "clip", inputs, ("y",), {}, arrays))


def test_bounds_from_a_file() -> None:
    two, three = frozen_float32(2), frozen_float32([3])
    assert read(("x",)) == Clip("clip", "x", "y", -LARGEST, LARGEST)
    assert read(("x", "a"), a=two) == Clip("clip", "x", "y", 2.0, LARGEST)
    assert read(("x", "", "b"), b=three) == Clip("clip", "x", "y", -LARGEST, 3.0)
    assert read(("x", "a", "b"), a=two, b=three) == Clip("clip", "x", "y", 2.0, 3.0)
    written = Clip("clip", "x", "y", 2.0, 3.0).to_onnx()
    assert Clip.from_onnx(written) == Clip("clip", "x", "y", 2.0, 3.0)


def test_other_bounds_are_refused() -> None:
    for array in (np.float64(1), np.int64(1), np.float32([1, 2])):
        with pytest.raises(ModelError, match=r"node 'clip' \(Clip\): input 1 is not one constant number"):
            read(("x", "a"), a=array)
    with pytest.raises(ModelError, match="input 1 is not one constant number"):
        read(("x", "other"))
    for between in ((1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)):
        with pytest.raises(ModelError, match=r"node 'clip': clips between .*; use finite bounds in ascending order"):
            Clip("clip", "x", "y", *between)
    with pytest.raises(ModelError, match="use float32 bounds"):
        Clip("clip", "x", "y", 0.1, 1.0)


@examples
@given(generators, st.integers(1, 300), bounds)
def test_pytorch(rng: np.random.Generator, count: int, between: Bounds) -> None:
    def clamp(torch: Any, x: Any) -> Any:
        return torch.clamp(x, *between)

    x, gy = smooth(rng, count), smooth(rng, count)
    y, clipped = clip.forward(x, *np.float32(between))
    exact, (exact_gx,) = autograd(clamp, [x], gy)
    assert np.array_equal(y, exact)
    assert np.array_equal(clip.input_gradient(gy, clipped), exact_gx)
