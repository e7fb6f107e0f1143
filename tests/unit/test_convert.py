"""Pictures of one data set in the shape a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("PIL")

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import Background, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.convert import fitted
from pmeta.trainer.datasets.icons import Icons

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Paper(Dataset):
    """Pictures on light ground."""

    name: ClassVar[str] = "paper"
    background: ClassVar[Background | None] = "light"

    def load(self, split: Split) -> ClassSamples:
        raise NotImplementedError


def pictures(channels: int, side: int) -> ClassSamples:
    samples = np.random.default_rng(0).integers(0, 256, (4, channels, side, side), dtype=np.uint8)
    return ClassSamples(samples, np.array([0, 0, 1, 1]), ("a", "b"), roles=np.array([1, 2, 1, 2], np.uint8))


def test_what_fits_is_left_alone() -> None:
    data = pictures(1, 28)
    assert fitted(data, Icons(), (1, 28, 28), Icons) is data


def test_sizes_change_by_averaging_areas() -> None:
    data = pictures(1, 8)
    small = fitted(data, Icons(), (1, 4, 4), Icons)
    expected = data.samples.reshape(4, 1, 4, 2, 4, 2).astype(float).mean((3, 5))
    assert np.abs(small.samples - expected).max() <= 1  # rows are rounded, then columns
    assert np.array_equal(small.labels, data.labels) and np.array_equal(small.roles, data.roles)


def test_colours_become_grey_and_grey_three_channels() -> None:
    data = pictures(3, 8)
    grey = fitted(data, Icons(), (1, 8, 8), Icons).samples[:, 0].astype(float)
    luminance = np.tensordot(data.samples.astype(float), [0.299, 0.587, 0.114], axes=([1], [0]))  # ITU-R BT.601
    assert np.abs(grey - luminance).max() <= 1
    wide = fitted(pictures(1, 8), Icons(), (3, 8, 8), Icons).samples
    assert (wide == wide[:, :1]).all()


def test_ink_stays_ink() -> None:
    data = pictures(3, 8)
    same, inverted = (fitted(data, source, (1, 8, 8), Icons).samples for source in (Icons(), Paper()))
    assert np.array_equal(same, 255 - inverted)
    assert np.array_equal(fitted(data, Paper(), (3, 8, 8), Icons).samples, data.samples)  # colours are left alone


def test_what_cannot_be_turned_is_named() -> None:
    series = ClassSamples(np.zeros((2, 6, 50), np.float32), np.array([0, 1]), ("a", "b"))
    for data, shape in ((series, (1, 28, 28)), (pictures(1, 8), (6, 50)), (pictures(1, 8), (2, 8, 8))):
        with pytest.raises(DataError, match=r"data set 'icons': has samples of shape \("):
            fitted(data, Icons(), shape, Icons)
    assert fitted(series, Icons(path=Path("x")), (6, 50), None) is series
