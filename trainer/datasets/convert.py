"""Turns the pictures of one data set into the shape a network was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ClassSamples, Dataset


def fitted(data: ClassSamples, source: Dataset, shape: tuple[int, ...], target: type[Dataset] | None) -> ClassSamples:
    """`data` of `source` as samples of `shape`, (C, H, W) with C = 1 or 3.

    Colours become grey by luminance, grey becomes three equal channels, sizes change by averaging areas (Pillow's BOX).
    Grey pictures on the other ground than `target`'s are inverted, so that ink is ink. Raises DataError for samples
    that are no pictures, or another number of channels.
    """
    pictures = len(shape) == len(data.shape) == 3 and data.samples.dtype == np.uint8
    invert = (
        target is not None
        and {source.background, target.background} == {"dark", "light"}
        and (pictures and (shape[0] == 1 or data.shape[0] == 1))
    )
    is_row = len(data.shape) == 2 and shape == (data.shape[0], 1, data.shape[1])  # a series (C, L)
    if (data.shape == shape or is_row) and not invert:
        return data
    if not pictures or {shape[0], data.shape[0]} - {1, 3}:
        what = f"has samples of shape {data.shape}, the model takes {shape}"
        raise DataError(what, f"data set '{source.name}'", "choose a data set of the model's kind")
    changed = np.stack([_picture(sample, shape) for sample in data.samples])
    samples = 255 - changed if invert else changed
    return replace(data, samples=samples)


def _picture(sample: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image

    channels, height, width = shape
    picture = Image.fromarray(sample[0] if sample.shape[0] == 1 else sample.transpose(1, 2, 0))
    picture = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BOX)
    array = np.asarray(picture, np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
