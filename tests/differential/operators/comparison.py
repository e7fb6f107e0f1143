"""What the operators' tests share: how they draw shapes and values, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Window
from pmeta.codegen.storage import StoredType
from pmeta.host.simulator.arithmetic import canonical_bytes
from pmeta.host.simulator.operators.operator import Contribution
from pmeta.host.simulator.storage import to_float16, to_int8
from tests.kernels import Fenced

Array = npt.NDArray[Any]

ROUNDING = 2.0**-24  # largest relative error of one float32 operation

examples = settings(max_examples=30)
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
channel_counts = st.sampled_from([1, 3, 5, 8, 17])


# --- values --------------------------------------------------------------------------------------------------

ORDINARY = "ordinary"
flavours = st.sampled_from([ORDINARY, "tiny", "special"])


def values(rng: np.random.Generator, *shape: int, flavour: str = ORDINARY) -> Float32Array:
    """Values of very different size, in which another order of a sum shows.

    "tiny": half of them zeros of both signs and subnormals. "special": a few of them infinities, NaN, or so large that
    products overflow.
    """
    drawn = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(np.float32)
    if flavour == "tiny":
        drawn = _mixed(rng, drawn, 0.5, (0.0, -0.0, 2.0**-149, -(2.0**-149), 1e-40, -3e-39, 2.0**-126))
    if flavour == "special":
        drawn = _mixed(rng, drawn, 0.2, (0.0, -0.0, 1e-42))
        drawn = _mixed(rng, drawn, 0.03, (np.inf, -np.inf, np.nan, 3e38, -3e38, 2e19))
    return drawn


def _mixed(rng: np.random.Generator, drawn: Float32Array, share: float, others: Sequence[float]) -> Float32Array:
    return np.where(rng.random(drawn.shape) < share, rng.choice(np.array(others, np.float32), drawn.shape), drawn)


def accumulator(rng: np.random.Generator, *shape: int, flavour: str = ORDINARY) -> Float32Array:
    """What a gradient accumulator may hold: a sum from +0, so never −0."""
    return np.float32(0) + values(rng, *shape, flavour=flavour)


def patterns(around: Sequence[float], every: int = 40_009) -> Float32Array:
    """Float32 bit patterns from all over (`every` is prime), and all next to these magnitudes, of both signs."""
    sweep = np.arange(0, 1 << 32, every, dtype=np.uint64)
    corners = np.array([*around, *(-magnitude for magnitude in around)], np.float32).view(np.uint32).astype(np.int64)
    near = (corners[:, None] + np.arange(-64, 65)).ravel() % (1 << 32)
    return np.concatenate([sweep, near]).astype(np.uint32).view(np.float32)


def smooth(rng: np.random.Generator, *shape: int) -> Float32Array:
    """Values for comparisons with float64: all of a similar size, between −2 and 2."""
    return rng.uniform(-2, 2, shape).astype(np.float32)


def gamma(rng: np.random.Generator, channels: int) -> Float32Array | None:
    """Meta attention of one direction: none, of all channels, or with some clipped to +0; rarely a NaN."""
    kind = rng.integers(4)
    if kind == 0:
        return None
    scores = rng.uniform(0.1, 3, channels).astype(np.float32)
    if kind > 1:
        scores[rng.random(channels) < 0.5] = 0
    if kind == 3:
        scores[rng.integers(channels)] = np.nan
    return scores


def kept_rows(x: Float32Array, scores: Float32Array, weigh: bool) -> tuple[npt.NDArray[np.uint16], Float32Array]:
    """(number of kept channels and their indices, their rows of x (C, ...), multiplied by the scores if `weigh`)."""
    channels = np.flatnonzero(scores)
    rows = x[channels]
    if weigh:
        rows = scores[channels].reshape(-1, *[1] * (x.ndim - 1)) * rows
    return np.array([channels.size, *channels], np.uint16), rows


stored_types: st.SearchStrategy[StoredType] = st.sampled_from(["float32", "float16", "int8"])
ROW_TYPES: dict[StoredType, int] = {"float32": 0, "float16": 1, "int8": 2}  # in pmeta_rows.h


@np.errstate(all="ignore")
def stored_rows(x: Float32Array, kept_as: StoredType) -> Array:
    """x (rows, size) as pmeta_rows.h lays it out: (rows, ...)."""
    if kept_as == "float32":
        return x
    if kept_as == "float16":
        return x.astype(np.float16).view(np.uint16)
    size = x.shape[1]
    rows = np.zeros((x.shape[0], 4 + -(-size // 4) * 4), np.uint8)
    for row, values in zip(rows, x, strict=True):
        numbers = np.abs(values[~np.isnan(values)])
        scale = np.float32(numbers.max() if numbers.size else 0) / np.float32(127)
        quotients = np.zeros(size, np.float32) if scale == 0 else np.rint(values / scale)
        row[:4] = np.frombuffer(scale.tobytes(), np.uint8)
        row[4 : 4 + size] = np.nan_to_num(np.clip(quotients, -127, 127)).astype(np.int8).view(np.uint8)
    return rows


def as_stored(rounding: StoredType, x: Float32Array) -> Float32Array:
    """x (C, ...) after it was stored; unlike a `Storage` also where int8 saves nothing."""
    return {"float32": lambda x: x, "float16": to_float16, "int8": to_int8}[rounding](x)


def unpacked(words: npt.NDArray[np.uint32], elements: int, bits: int = 1) -> npt.NDArray[np.uint32]:
    """What kernels packed: `bits` of every element, as many to a 32-bit word as fit, from the lowest bit up.

    Nothing but zeros may lie beyond the last element.
    """
    per_word = 32 // bits
    assert words.size == -(-elements // per_word)
    shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
    fields = ((words[:, None] >> shifts) & np.uint32(2**bits - 1)).ravel()
    assert not fields[elements:].any()
    return fields[:elements]


# --- windows -------------------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, pads_below_kernel: bool = False) -> tuple[Window, tuple[int, int]]:
    """(a window, an input size (rows, columns) it fits), drawn for rows and columns apart.

    pads_below_kernel: then, as pooling needs, every window sees some input.
    """
    axes, sizes = [], []
    for _ in range(2):
        kernel, stride = draw(st.sampled_from([1, 2, 3, 4, 5, 7])), draw(st.sampled_from([1, 2, 3]))
        dilation = draw(st.sampled_from([1, 2]))
        pads = st.integers(0, kernel - 1 if pads_below_kernel else 3)
        before, after = draw(pads), draw(pads)
        smallest = max(dilation, dilation * (kernel - 1) + 1 - before - after)
        sizes.append(
            smallest + draw(st.one_of(st.integers(0, 7), st.sampled_from([18, 27])))
        )  # more than a block or two
        axes.append((kernel, stride, dilation, before, after))
    return Window(*zip(*axes, strict=True)), (sizes[0], sizes[1])


@st.composite
def windows_of_equal_width(draw: st.DrawFn) -> tuple[Window, tuple[int, int]]:
    """The same without strides, for outputs as wide as the input: vectors across rows compute them, if not too few."""
    axes, sizes = [], []
    for axis in range(2):
        kernel, dilation = draw(st.sampled_from([1, 2, 3, 5, 7])), draw(st.sampled_from([1, 1, 2]))
        reach = dilation * (kernel - 1)
        before = draw(st.integers(0, reach))
        after = reach - before if axis else draw(st.integers(0, reach))
        sizes.append(max(1, reach + 1 - before - after) + draw(st.sampled_from([0, 1, 2, 4, 6, 8, 13, 20, 27])))
        axes.append((kernel, 1, dilation, before, after))
    return Window(*zip(*axes, strict=True)), (sizes[0], sizes[1])


# --- comparisons ---------------------------------------------------------------------------------------------


def assert_same(actual: Fenced | Float32Array, expected: Float32Array) -> None:
    """By bytes, any NaN for any NaN."""
    array = actual.array if isinstance(actual, Fenced) else actual
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype == np.float32
    assert canonical_bytes(array) == canonical_bytes(expected)


def assert_accumulates(actual: Fenced, start: Float32Array, contribution: Contribution) -> None:
    """`start` plus what one sample adds, by bytes."""
    expected = np.ascontiguousarray(np.broadcast_to(contribution.added_to(start), start.shape))
    assert_same(actual, expected)


def assert_close(actual: Float32Array, exact: npt.NDArray[np.float64], roundings: float, size: float) -> None:
    """|actual − exact| ≤ roundings·2⁻²⁴·size everywhere.

    For a sum of n products: n + 1 roundings, `size` the largest sum of the terms' magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, Sec. 3.1); nothing about it is chosen.
    """
    assert actual.shape == exact.shape
    error = float(np.abs(actual - exact).max())
    assert error <= roundings * ROUNDING * size, f"{error / (ROUNDING * size):.1f} roundings, allowed {roundings}"


def autograd(
    function: Callable[..., Any], inputs: Sequence[Float32Array], gy: Float32Array | None = None
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
    """(y, gradients of the inputs) in PyTorch's float64 of y = function(torch, *inputs), given g(y) (None: 1)."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    leaves = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in inputs]
    y = function(torch, *leaves)
    upstream = torch.ones_like(y) if gy is None else torch.tensor(gy, dtype=torch.float64)
    gradients = torch.autograd.grad(y, leaves, upstream)
    return y.detach().numpy(), [gradient.numpy() for gradient in gradients]
