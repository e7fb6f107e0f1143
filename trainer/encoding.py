"""From stored samples to the float32 the network sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.errors import ConfigError
from pmeta.trainer.config import InputConfig
from pmeta.trainer.datasets.base import ClassSamples

MEASURED_SAMPLES = 10_000  # at most, evenly spread, for mean and deviation


def input_encoding(config: InputConfig, data: ClassSamples) -> InputEncoding:
    """float32 samples travel as they are; uint8 ones with the configured scale and offset of each channel.

    Where none are configured: those that bring `data` to mean 0 and deviation 1. Raises ConfigError.
    """
    if data.samples.dtype == np.float32:
        if config.scale:
            raise ConfigError("'input.scale' is for uint8 samples", "configuration", "leave out [input]")
        return InputEncoding("float32")
    channels = data.shape[0]
    scale, offset = (config.scale, config.offset) if config.scale else _measured(data)
    if len(scale) not in (1, channels):
        raise ConfigError(
            f"'input.scale' has {len(scale)} numbers", "configuration", f"write 1, or {channels}: one for each channel"
        )
    repeats = channels // len(scale)
    return InputEncoding("uint8", _float32(scale) * repeats, _float32(offset) * repeats)


def _measured(data: ClassSamples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(scale, offset) by channel."""
    part = data.samples[:: -(-len(data.samples) // MEASURED_SAMPLES)].astype(np.float64)
    deviation = np.maximum(part.std((0, 2, 3)), 1.0)  # an even channel has none
    return tuple((1 / deviation).tolist()), tuple((-part.mean((0, 2, 3)) / deviation).tolist())


def _float32(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(np.float32(value)) for value in values)


def decode(raw: Tensor, encoding: InputEncoding) -> Tensor:
    """(..., C, H, W) uint8 → float32: x = u·scale[c] + offset[c] in two roundings, as the device does.

    float32 samples pass.
    """
    if encoding.kind == "float32":
        return raw
    scale, offset = (torch.tensor(v, device=raw.device)[:, None, None] for v in (encoding.scale, encoding.offset))
    return raw.to(torch.float32) * scale + offset
