"""Every operator of the simulator against scalar loops over the contract's sentences, by bytes."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from pmeta.codegen.operators import Conv, Flatten, Gemm, GroupNorm, Window
from pmeta.host.simulator.arithmetic import canonical_bytes, exp32, log32
from pmeta.host.simulator.operators import conv, flatten, gemm, group_norm, max_pool, relu, softmax_cross_entropy
from pmeta.host.simulator.operators.operator import Contribution, Gamma, bias_contribution, weight_contribution
from tests.reference import scalar

pytestmark = pytest.mark.unit

Array = npt.NDArray[np.float32]
Shape3 = tuple[int, int, int]

WINDOWS = [
    Window((1, 1)),
    Window((3, 3), pad_before=(1, 1), pad_after=(1, 1)),
    Window((3, 2), stride=(2, 1), dilation=(1, 2), pad_before=(0, 1), pad_after=(2, 0)),
    Window((2, 3), stride=(3, 2), pad_before=(1, 2), pad_after=(0, 1)),
    Window((2, 2), stride=(2, 2)),
    Window((5, 3), dilation=(2, 1), pad_before=(4, 0), pad_after=(4, 2)),
    Window((2, 2), stride=(1, 3), dilation=(3, 1), pad_before=(3, 3), pad_after=(3, 3)),  # some outputs see no input
]
POOLS = [
    Window((2, 2), stride=(2, 2)),
    Window((3, 3), pad_before=(1, 1), pad_after=(1, 1)),
    Window((3, 2), stride=(2, 1), dilation=(1, 2), pad_before=(2, 1), pad_after=(1, 0)),
    Window((2, 3), stride=(1, 3), dilation=(3, 1), pad_before=(1, 2), pad_after=(0, 1)),
    Window((1, 1), stride=(3, 2)),
]


def draw(seed: int, *shape: int, special: bool = False) -> Array:
    """Values of very different size; `special` mixes in zeros of both signs, infinities and NaN."""
    rng = np.random.default_rng([seed, *shape])
    values = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(np.float32)
    if special:
        where = rng.random(shape) < 0.15
        values[where] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42], np.float32), where.sum())
    return values


def assert_same(actual: Array, expected: Array) -> None:
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    assert canonical_bytes(actual) == canonical_bytes(expected)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_conv(window: Window, special: bool) -> None:
    x, w, b = draw(1, 3, 5, 6, special=special), draw(2, 2, 3, *window.kernel), draw(3, 2)
    y = conv.forward(x, w, b, window)
    assert_same(y, scalar.conv_forward(x, w, b, window))
    assert_same(conv.forward(x, w, None, window), scalar.conv_forward(x, w, None, window))
    gy = draw(4, *y.shape, special=special)
    shape = cast(Shape3, x.shape)
    assert_same(conv.input_gradient(gy, w, window, shape), scalar.conv_input_gradient(gy, w, window, shape))
    assert_same(conv.weight_gradient(gy, x, window), scalar.conv_weight_gradient(gy, x, window))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("features", "channels"), [(1, 1), (5, 9), (3, 40)])
def test_gemm(features: int, channels: int, special: bool) -> None:
    x, w, b = draw(1, channels, special=special), draw(2, features, channels), draw(3, features)
    gy = draw(4, features, special=special)
    assert_same(gemm.forward(x, w, b), scalar.gemm_forward(x, w, b))
    assert_same(gemm.forward(x, w, None), scalar.gemm_forward(x, w, None))
    assert_same(gemm.input_gradient(gy, w), scalar.gemm_input_gradient(gy, w))
    assert_same(gemm.weight_gradient(gy, x), scalar.gemm_weight_gradient(gy, x))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("shape", "groups"), [((1, 1, 1), 1), ((6, 3, 5), 3), ((4, 4, 4), 1), ((5, 2, 3), 5)])
def test_group_norm(shape: Shape3, groups: int, special: bool) -> None:
    x, gz, scale = draw(1, *shape, special=special), draw(2, *shape), draw(3, shape[0])
    saved = group_norm.normalize(x, groups, np.float32(1e-5))
    x_hat, rstds = scalar.group_norm(x, groups, np.float32(1e-5))
    assert_same(saved.x_hat, x_hat)
    assert_same(saved.rstd[:, 0], rstds)
    expected = scalar.group_norm_input_gradient(gz, scale, x_hat, rstds)
    assert_same(group_norm.input_gradient(gz, scale, saved), expected)
    assert_same(group_norm.scale_gradient(gz, saved.x_hat), scalar.channel_sum(gz * x_hat))


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("window", POOLS)
def test_max_pool(window: Window, special: bool) -> None:
    x = np.round(draw(1, 3, 7, 6, special=special))  # rounded: many ties
    y, saved = max_pool.forward(x, window)
    expected, best = scalar.max_pool(x, window)
    assert_same(y, expected)
    assert np.array_equal(saved.best, best)
    gy = draw(2, *y.shape)
    assert_same(max_pool.input_gradient(gy, saved), scalar.max_pool_input_gradient(gy, best, cast(Shape3, x.shape)))


def test_max_pool_takes_the_first_of_equals_and_the_last_nan() -> None:
    window = Window((1, 4))
    for row, winner in (
        ([2, 5, 5, 1], 1),
        ([1, np.nan, 7, np.nan], 3),
        ([-0.0, 0.0, -1, 0], 0),
        ([np.nan, 9, 9, 9], 0),
    ):
        _, saved = max_pool.forward(np.array([[row]], np.float32), window)
        assert saved.best.item() == winner


def test_relu_gives_positive_zero_and_lets_nan_pass() -> None:
    x = np.array([-1, -0.0, 0.0, 2, np.nan, -np.inf, 1e-45], np.float32)
    y, zero = relu.forward(x)
    assert_same(y, np.array([0, 0, 0, 2, np.nan, 0, 1e-45], np.float32))
    gy = np.array([1, np.nan, -0.0, -0.0, 3, 4, 5], np.float32)
    assert_same(relu.input_gradient(gy, zero), np.array([0, 0, 0, -0.0, 3, 0, 5], np.float32))


def test_relu_and_max_pool_commute_in_values_and_gradients() -> None:
    for seed, window in enumerate(POOLS * 3):
        x = np.round(draw(seed, 3, 6, 6))
        activated, zero = relu.forward(x)
        y, saved = max_pool.forward(activated, window)
        pooled, saved_before = max_pool.forward(x, window)
        y_after, zero_after = relu.forward(pooled)
        assert_same(y, y_after)
        gy = draw(seed + 100, *y.shape)
        first = relu.input_gradient(max_pool.input_gradient(gy, saved), zero)
        after = max_pool.input_gradient(relu.input_gradient(gy, zero_after), saved_before)
        assert_same(first, after)


def test_flatten_keeps_the_order() -> None:
    operator, x = flatten.FlattenOperator(), draw(1, 2, 3, 4)
    node = Flatten("flatten", "x", "y")
    y, saved = operator.forward(node, {}, x)
    assert y.tolist() == x.reshape(-1).tolist()
    assert_same(operator.input_gradient(node, {}, saved, y), x)


def test_softmax_cross_entropy() -> None:
    logits = draw(1, 11)
    loss, gradient = softmax_cross_entropy.loss_and_gradient(logits, 4)
    e = [exp32(o - max(logits)) for o in logits]
    total = scalar.lane_sum([np.float32(v) for v in e])
    assert_same(np.asarray(loss), np.asarray(log32(total) - (logits[4] - max(logits))))
    expected = np.array([v / total for v in e], np.float32)
    expected[4] -= np.float32(1)
    assert_same(gradient, expected)


def accumulate(start: float, contribution: Contribution) -> Array:
    return contribution.added_to(np.full(contribution.d.shape, start, np.float32))


def test_contributions_multiply_by_attention_only_where_there_is_some() -> None:
    d, gamma = draw(1, 3, 2), draw(2, 3)
    plain = weight_contribution(d, Gamma(None, None))
    assert_same(accumulate(0.1, plain), np.float32(0.1) + d)
    weighted = weight_contribution(d, Gamma(None, gamma))
    assert_same(accumulate(0.1, weighted), np.float32(0.1) + gamma[:, None] * d)


def test_forward_attention_is_rounded_into_the_input_before_the_sum() -> None:
    gamma, x, gy = Gamma(draw(1, 3), draw(2, 2)), draw(3, 3, 4, 4), draw(4, 2, 3, 3)
    assert gamma.fw is not None and gamma.bw is not None
    node = Conv("conv", "x", "y", "w", None, 2, Window((2, 2)))
    kept = conv.ConvOperator().kept_for_weights(x, lambda x: x, gamma.fw, of_sample=False)
    added = accumulate(0.1, conv.ConvOperator().contribution(node, kept, gy, gamma, "weight"))
    d = scalar.conv_weight_gradient(gy, gamma.fw[:, None, None] * x, node.window)
    assert_same(added, np.float32(0.1) + gamma.bw[:, None, None, None] * d)
    fc = Gemm("fc", "x", "y", "w", None, 2)
    vector, gradient = draw(5, 3), draw(6, 2)
    kept = gemm.GemmOperator().kept_for_weights(vector, lambda x: x, gamma.fw, of_sample=False)
    added = accumulate(0.1, gemm.GemmOperator().contribution(fc, kept, gradient, gamma, "weight"))
    d = scalar.gemm_weight_gradient(gradient, gamma.fw * vector)
    assert_same(added, np.float32(0.1) + gamma.bw[:, None] * d)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("directions", ["", "fw", "bw", "fw bw"])
def test_group_norm_scale_is_weighed_by_the_product_of_both_directions(directions: str) -> None:
    fw, bw = draw(1, 4), draw(2, 4)
    fw[0], bw[1] = 0, 0
    gamma = Gamma(fw if "fw" in directions else None, bw if "bw" in directions else None)
    saved = group_norm.normalize(draw(3, 4, 2, 3), 2, np.float32(1e-5))
    gz = draw(4, 4, 2, 3)
    gz[:2, 0, 0] = np.inf  # 0·∞ would show
    node = GroupNorm("norm", "x", "y", "scale", "shift", 2, 1e-5)
    operator = group_norm.GroupNormOperator()
    d = scalar.channel_sum(gz * saved.x_hat)
    factor = {"": np.ones(4, np.float32), "fw": fw, "bw": bw, "fw bw": fw * bw}[directions]  # 1·d is d, bit for bit
    added = accumulate(0.1, operator.contribution(node, saved, gz, gamma, "weight"))
    assert_same(added, np.where(factor == 0, np.float32(0.1), np.float32(0.1) + factor * d))
    factor = bw if "bw" in directions else np.ones(4, np.float32)
    added = accumulate(0.1, operator.contribution(node, saved, gz, gamma, "bias"))
    assert_same(added, np.where(factor == 0, np.float32(0.1), np.float32(0.1) + factor * scalar.channel_sum(gz)))


def test_clipped_channels_add_nothing_even_where_d_is_not_finite() -> None:
    d = np.full((2, 2), np.nan, np.float32)
    fw, bw = np.array([0, 2], np.float32), np.array([2, 0], np.float32)
    total = accumulate(3.0, weight_contribution(d, Gamma(fw, bw)))
    assert np.array_equal(np.isnan(total), [[False, True], [False, False]])
    gy = np.full((2, 3), np.nan, np.float32)
    assert np.array_equal(np.isnan(accumulate(0.0, bias_contribution(gy, Gamma(fw, bw)))), [True, False])
    assert np.isnan(accumulate(0.0, bias_contribution(gy, Gamma(fw, None)))).all()
