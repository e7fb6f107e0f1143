"""GroupNormalization: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import GroupNorm
from pmeta.codegen.storage import StoredType
from pmeta.host.simulator.operators import group_norm
from pmeta.host.simulator.operators.operator import Gamma
from tests.differential.operators.comparison import (
    ROW_TYPES,
    accumulator,
    as_stored,
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
    stored_rows,
    stored_types,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

EPSILON = float(np.float32(1e-5))


@st.composite
def layers(draw: st.DrawFn) -> tuple[GroupNorm, tuple[int, ...]]:
    """(a layer, the shape it reads, a map or a vector): groups of one channel, of some, of all; down to one pixel."""
    groups, channels_per_group = draw(st.sampled_from([1, 2, 3, 4, 8])), draw(st.sampled_from([1, 2, 3, 5]))
    pixels = draw(st.one_of(st.just(()), st.tuples(st.integers(1, 9), st.integers(1, 9))))
    shape = (groups * channels_per_group, *pixels)
    epsilon = draw(st.sampled_from([EPSILON, 1.0]))
    return GroupNorm("norm", "x", "z", "scale", "shift", groups, epsilon), shape


def normalized(layer: GroupNorm, x: Float32Array) -> group_norm.Normalized:
    return group_norm.normalize(x, layer.groups, np.float32(layer.epsilon))


@examples
@given(generators, layers(), st.booleans(), flavours)
def test_forward(
    rng: np.random.Generator, drawn: tuple[GroupNorm, tuple[int, ...]], same_memory: bool, flavour: str
) -> None:
    layer, shape = drawn
    x = values(rng, *shape, flavour=flavour)
    scale, shift = values(rng, shape[0], flavour=flavour), values(rng, shape[0], flavour=flavour)
    constants = layer.shape_constants(shape)
    x_hat, rstd = in_place(x), unwritten(layer.groups)
    call("pmeta_group_norm_normalize", constants, x_hat, rstd)
    z = x_hat if same_memory else unwritten(*shape)
    expected, saved = group_norm.GroupNormOperator().forward(layer, {"scale": scale, "shift": shift}, x)
    assert_same(x_hat, saved.x_hat)
    assert_same(rstd, saved.rstd[:, 0])
    alone = in_place(x)
    call("pmeta_group_norm_normalize", constants, alone, None)
    assert_same(alone, saved.x_hat)
    call("pmeta_group_norm_affine", constants, x_hat, scale, shift, z)
    assert_same(z, expected)


@examples
@given(generators, layers(), st.sampled_from(["apart", "over g", "over x_hat"]), flavours)
def test_input_gradient(
    rng: np.random.Generator, drawn: tuple[GroupNorm, tuple[int, ...]], where: str, flavour: str
) -> None:
    layer, shape = drawn
    saved = normalized(layer, values(rng, *shape, flavour=flavour))
    scale, gz = values(rng, shape[0], flavour=flavour), values(rng, *shape, flavour=flavour)
    g, x_hat = in_place(gz), in_place(saved.x_hat)
    gx = {"apart": unwritten(*shape), "over g": g, "over x_hat": x_hat}[where]
    constants = layer.shape_constants(shape)
    call("pmeta_group_norm_input_gradient", constants, x_hat, saved.rstd[:, 0], scale, g, gx)
    assert_same(gx, group_norm.input_gradient(gz, scale, saved))


@examples
@given(generators, layers(), st.booleans(), stored_types, flavours)
def test_scale_gradient(
    rng: np.random.Generator,
    drawn: tuple[GroupNorm, tuple[int, ...]],
    stores_rows: bool,
    kept_as: StoredType,
    flavour: str,
) -> None:
    """With forward attention x̂ comes whole, or as its kept rows alone."""
    layer, shape = drawn
    saved = normalized(layer, values(rng, *shape, flavour=flavour))
    gz = values(rng, *shape, flavour=flavour)
    fw, bw = gamma(rng, shape[0]), gamma(rng, shape[0])
    start = accumulator(rng, shape[0], flavour=flavour)
    kept, stored = kept_rows(saved.x_hat, fw, weigh=False) if fw is not None and stores_rows else (None, saved.x_hat)
    grad = in_place(start)
    pixels = gz[0].size
    read = (kept, ROW_TYPES[kept_as], stored_rows(stored.reshape(-1, pixels), kept_as))
    row = None if kept_as == "float32" else unwritten(pixels)
    constants = layer.shape_constants(shape)
    call("pmeta_group_norm_scale_gradient", constants, *read, row, gz, fw, bw, grad)
    operator = group_norm.GroupNormOperator()
    seen = operator.kept_for_weights(saved, functools.partial(as_stored, kept_as), fw, of_sample=False)
    contribution = operator.contribution(layer, seen, gz, Gamma(fw, bw), "weight")
    assert_accumulates(grad, start, contribution)


@examples
@given(generators, st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 3]), st.integers(2, 9), st.integers(4, 9))
def test_pytorch(rng: np.random.Generator, groups: int, channels_per_group: int, height: int, width: int) -> None:
    """Groups of eight or more: a smaller one may be all but constant, and then dividing by its deviation magnifies
    the rounding of its mean without bound."""
    shape = (groups * channels_per_group, height, width)
    layer = GroupNorm("norm", "x", "z", "scale", "shift", groups, EPSILON)

    def norm(torch: Any, x: Any, scale: Any, shift: Any) -> Any:
        return torch.nn.functional.group_norm(x[None], groups, scale, shift, EPSILON)[0]

    inputs = [smooth(rng, *shape), smooth(rng, shape[0]), smooth(rng, shape[0])]
    x, scale, shift = inputs
    gz = smooth(rng, *shape)
    exact, (exact_gx, exact_scale, _) = autograd(norm, inputs, gz)
    z, saved = group_norm.GroupNormOperator().forward(layer, {"scale": scale, "shift": shift}, x)
    elements = x.size // groups
    # A lane sum of M has M/8 + 3 additions; mean and deviation are two of them, each with a few operations around.
    roundings = 2 * (elements / 8 + 3) + 10
    spread = float(np.abs(saved.x_hat).max())
    assert_close(z, exact, roundings, float(spread * np.abs(scale).max() + np.abs(shift).max()))
    gs = float(np.abs(gz * scale[:, None, None]).max())
    # Of ((gs − A) − x̂·B)·rstd, where |A| and |B| are at most the largest gs.
    size = gs * (2 + spread) * float(saved.rstd.max())
    assert_close(group_norm.input_gradient(gz, scale, saved), exact_gx, roundings + elements / 8, size)
    pixels = height * width
    size_of_sum = float(np.abs(gz * saved.x_hat).sum((1, 2)).max())
    assert_close(group_norm.scale_gradient(gz, saved.x_hat), exact_scale, pixels + 1 + roundings, size_of_sum)


@examples
@given(generators, st.integers(2, 40))
def test_vectors(rng: np.random.Generator, channels: int) -> None:
    """LayerNormalization of a vector is that of a map with one pixel per channel, as PyTorch's is, too."""
    x, scale, shift = (smooth(rng, channels) for _ in range(3))
    layer = GroupNorm("norm", "x", "z", "scale", "shift", 1, 1.0)
    operator, weights = group_norm.GroupNormOperator(), {"scale": scale, "shift": shift}
    z, saved = operator.forward(layer, weights, x)
    of_map, saved_of_map = operator.forward(layer, weights, x[:, None, None])
    assert_same(z, of_map[:, 0, 0])
    assert_same(
        operator.input_gradient(layer, weights, saved, x),
        operator.input_gradient(layer, weights, saved_of_map, x[:, None, None])[:, 0, 0],
    )
    exact, _ = autograd(
        lambda torch, *leaves: torch.layer_norm(leaves[0], (channels,), *leaves[1:], 1.0), [x, scale, shift]
    )
    spread = float(np.abs(saved.x_hat).max() * np.abs(scale).max() + np.abs(shift).max())
    assert_close(z, exact, 2 * (channels / 8 + 3) + 10, spread)
