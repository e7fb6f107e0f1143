"""Stored rows: C kernels ≡ simulator ≡ NumPy's binary16, by bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.storage import StoredType
from pmeta.host.simulator.storage import to_float16, to_int8
from tests.differential.operators.comparison import (
    ROW_TYPES,
    as_stored,
    assert_same,
    examples,
    flavours,
    generators,
    patterns,
    stored_rows,
    stored_types,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

counts, sizes = st.integers(1, 5), st.sampled_from([1, 2, 3, 4, 5, 16, 33])
encoded_types = st.sampled_from(["float16", "int8"])


def converted(x: Float32Array, kept_as: StoredType) -> np.ndarray:
    """x (count, size) as the kernel stores it; bytes that only fill a row up stay zero."""
    rows = in_place(np.zeros_like(stored_rows(x, kept_as)))
    call("pmeta_convert_rows", *x.shape, ROW_TYPES["float32"], x, None, ROW_TYPES[kept_as], rows)
    return rows.array


@examples
@given(generators, counts, sizes, stored_types, flavours)
def test_convert_and_decode(rng: np.random.Generator, count: int, size: int, kept_as: StoredType, flavour: str) -> None:
    x = values(rng, count, size, flavour=flavour)
    rows = converted(x, kept_as)
    back = unwritten(count, size)
    row = unwritten(size) if kept_as != "float32" else None
    call("pmeta_convert_rows", count, size, ROW_TYPES[kept_as], rows, row, ROW_TYPES["float32"], back)
    assert_same(back, as_stored(kept_as, x))
    if kept_as != "float32":
        again = unwritten(count, size)
        call("pmeta_decode_rows", ROW_TYPES[kept_as], count, size, rows, again)
        assert_same(again, as_stored(kept_as, x))


@examples
@given(generators, counts, sizes, encoded_types, flavours)
def test_round(rng: np.random.Generator, count: int, size: int, kept_as: StoredType, flavour: str) -> None:
    x = values(rng, count, size, flavour=flavour)
    rounded = in_place(x)
    call("pmeta_round_rows", ROW_TYPES[kept_as], count, size, rounded)
    assert_same(rounded, as_stored(kept_as, x))


@examples
@given(generators, counts, sizes)
def test_from_float16_to_int8(rng: np.random.Generator, count: int, size: int) -> None:
    x = values(rng, count, size)
    rows, row = in_place(np.zeros_like(stored_rows(x, "int8"))), unwritten(size)
    halves = stored_rows(x, "float16")
    call("pmeta_convert_rows", count, size, ROW_TYPES["float16"], halves, row, ROW_TYPES["int8"], rows)
    assert np.array_equal(rows.array, stored_rows(to_float16(x), "int8"))


def test_binary16_of_patterns_from_all_over() -> None:
    """Subnormals, ties between neighbours, the edge to infinity, NaN; and all 2¹⁶ back."""
    x = patterns([0, 2.0**-26, 2.0**-25, 2.0**-24, 1.5 * 2.0**-24, 2.0**-14, 1 + 2.0**-11, 65504, 65520, 65536])[None]
    rows, expected = converted(x, "float16"), stored_rows(x, "float16")
    numbers = ~np.isnan(x)
    assert np.array_equal(rows[numbers], expected[numbers])
    assert np.isnan(rows[~numbers].view(np.float16)).all()
    halves = np.arange(1 << 16, dtype=np.uint16)[None]
    decoded = unwritten(*halves.shape)
    call("pmeta_decode_rows", ROW_TYPES["float16"], *halves.shape, halves, decoded)
    assert_same(decoded, halves.view(np.float16).astype(np.float32))


def test_int8_rounds_half_to_even_within_127() -> None:
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -127, 126.5]], np.float32)
    assert_same(to_int8(x), np.array([[127, 0, 2, 2, 0, -2, -2, -127, 126]], np.float32))
    assert np.array_equal(converted(x, "int8"), stored_rows(x, "int8"))
    tiny = np.array([[190 * 2.0**-149, -(2.0**-149), 0, np.nan]], np.float32)  # the scale is rounded to 2⁻¹⁴⁹
    assert_same(to_int8(tiny), np.array([[127 * 2.0**-149, -(2.0**-149), 0, 0]], np.float32))
    assert np.array_equal(converted(tiny, "int8"), stored_rows(tiny, "int8"))
    assert not to_int8(np.full((1, 3), 2.0**-149, np.float32)).any()  # a scale of zero


def test_int8_with_an_infinity_is_not_a_number() -> None:
    x = np.array([[1, np.inf, -2]], np.float32)
    assert np.isnan(to_int8(x)).all()
    rounded = in_place(x)
    call("pmeta_round_rows", ROW_TYPES["int8"], 1, 3, rounded)
    assert np.isnan(rounded.array).all()
