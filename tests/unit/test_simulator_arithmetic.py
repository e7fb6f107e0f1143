"""The simulator's sums, exp, log and canonical bytes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from benchmarks.exp_log_error import sweep, update
from pmeta.host.simulator.arithmetic import (
    canonical_bytes,
    crc32,
    exp32,
    lane_sum,
    log32,
    softmax,
    sum_from_zero,
    sum_onto,
)
from pmeta.host.simulator.operators import sigmoid, tanh
from tests.reference import scalar

pytestmark = pytest.mark.unit


def bits(value: object) -> bytes:
    return canonical_bytes(np.asarray(value, np.float32))


def f(text: str) -> np.float32:
    return np.float32(float.fromhex(text))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 100, 3136])
def test_lane_sum_adds_in_the_written_order(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(3, count)).astype(np.float32)
    rows *= np.float32(10) ** (np.arange(count) % 5).astype(np.float32)
    assert bits(lane_sum(rows)) == bits([scalar.lane_sum(row) for row in rows])


def test_lane_sum_of_negative_zeros_is_positive_zero() -> None:
    assert bits(lane_sum(np.full(3, -0.0, np.float32))) == bits(0.0)


def test_sums_go_term_by_term() -> None:
    rng = np.random.default_rng(0)
    terms = (rng.normal(size=(4, 5, 1000)) * 10.0 ** rng.integers(-6, 6, (4, 5, 1000))).astype(np.float32)
    start = rng.normal(size=(4, 5)).astype(np.float32)
    expected = start.copy()
    for index in range(terms.shape[-1]):
        expected = expected + terms[..., index]
    assert bits(sum_onto(start, terms)) == bits(expected)
    assert bits(sum_from_zero(terms.reshape(20, 1000))) == bits(scalar.channel_sum(terms.reshape(20, 1000)))


def test_sums_keep_the_sign_of_zero() -> None:
    negative = np.full((1, 2), -0.0, np.float32)
    assert bits(sum_from_zero(negative)) == bits([0.0])
    assert bits(sum_onto(negative[:, 0], negative)) == bits([-0.0])


def test_subnormals_are_kept() -> None:
    tiny = np.full((1, 3), 2.0**-149, np.float32)
    assert sum_from_zero(tiny)[0] == np.float32(3 * 2.0**-149)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ("0x0p+0", "0x1p+0"),
        ("-0x0p+0", "0x1p+0"),
        ("inf", "inf"),
        ("-inf", "0x0p+0"),
        ("0x1.62e42ep+6", "0x1.ffff08p+127"),  # the last finite one
        ("0x1.62e430p+6", "inf"),
        ("-0x1.9fe368p+6", "0x1p-149"),  # the last one above 0
        ("-0x1.9fe36ap+6", "0x0p+0"),
        ("0x1p-149", "0x1p+0"),
        ("0x1.fffffep+127", "inf"),
    ],
)
def test_exp_of_special_values(x: str, expected: str) -> None:
    assert bits(exp32(f(x))) == bits(f(expected))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ("0x1p+0", "0x0p+0"),
        ("0x0p+0", "-inf"),
        ("-0x0p+0", "-inf"),
        ("inf", "inf"),
        ("-0x1p-149", "nan"),
        ("-inf", "nan"),
        ("0x1p-149", "-0x1.9d1dap+6"),  # −149·ln 2
        ("0x1p-126", "-0x1.5d58ap+6"),
    ],
)
def test_log_of_special_values(x: str, expected: str) -> None:
    assert bits(log32(f(x))) == bits(f(expected))


def test_nan_passes_through_exp_and_log() -> None:
    assert np.isnan(exp32(np.float32(np.nan))) and np.isnan(log32(np.float32(np.nan)))


def test_exp_and_log_stay_within_the_documented_error() -> None:
    every = 4099  # prime, so that all parts of the mantissa are met; the benchmark takes all patterns
    exp = sweep(exp32, np.exp, every, lambda _: None)
    log = sweep(log32, np.log, every, lambda _: None)
    worst = np.array([f("-0x1.765c30p+2"), f("-0x1.601a64p+6")])  # that the benchmark found
    update(exp, worst, exp32(worst), np.exp(worst.astype(np.float64)))
    worst = np.array([f("0x1.692f88p-1")])
    update(log, worst, log32(worst), np.log(worst.astype(np.float64)))
    assert 1.0 < exp.normal < 1.013 and 0.7 < exp.subnormal < 0.75 and exp.wrong_special == 0
    assert 0.8 < log.normal < 0.81 and log.wrong_special == 0


def test_sigmoid_and_tanh_stay_within_the_documented_error() -> None:
    def logistic(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    every = 4099
    worst = np.array([f("-0x1.0a111ap+2"), f("0x1.43183ap-1"), f("-0x1.601a64p+6")])  # that the benchmark found
    found = {}
    for name, function, exact in (("sigmoid", sigmoid.forward, logistic), ("tanh", tanh.forward, np.tanh)):
        found[name] = sweep(function, exact, every, lambda _: None)
        update(found[name], worst, function(worst), exact(worst.astype(np.float64)))
    assert 2.4 < found["sigmoid"].normal < 2.402 and 0.7 < found["sigmoid"].subnormal < 0.75
    assert 1.33 < found["tanh"].normal < 1.332
    assert not any(errors.wrong_special for errors in found.values())


def test_softmax_takes_the_first_maximum_and_ignores_a_later_nan() -> None:
    p, maximum, total = softmax(np.array([1, 3, np.nan, 2], np.float32))
    assert maximum == 3
    assert np.isnan(total) and np.isnan(p).all()
    p, maximum, total = softmax(np.array([1, 3, 3, 2], np.float32))
    e = [exp32(np.float32(v)) for v in (-2, 0, 0, -1)]
    assert bits(total) == bits(scalar.lane_sum([np.float32(v) for v in e]))
    assert bits(p) == bits([np.float32(v) / total for v in e])


def test_canonical_bytes_are_little_endian_with_one_nan() -> None:
    patterns = struct.pack("<4I", 0x7F800001, 0xFFC12345, 0x80000000, 0x3F800000)
    array = np.frombuffer(patterns, "<f4").astype(np.float32)
    expected = struct.pack("<4I", 0x7FC00000, 0x7FC00000, 0x80000000, 0x3F800000)
    assert canonical_bytes(array) == expected
    assert crc32(array) == zlib.crc32(expected)
