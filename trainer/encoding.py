"""From stored uint8 samples to the float32 the network sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pmeta.codegen.adaptation import InputEncoding
from pmeta.trainer.config import InputConfig


def input_encoding(config: InputConfig, channels: int) -> InputEncoding:
    """The configured encoding with one (float32) scale and offset per channel."""
    scale, offset = float(np.float32(config.scale)), float(np.float32(config.offset))
    return InputEncoding("uint8", (scale,) * channels, (offset,) * channels)


def decode(raw: Tensor, encoding: InputEncoding) -> Tensor:
    """(..., C, H, W) uint8 → float32: x = u·scale[c] + offset[c] in two roundings, as the device does."""
    scale, offset = (torch.tensor(v, device=raw.device)[:, None, None] for v in (encoding.scale, encoding.offset))
    return raw.to(torch.float32) * scale + offset
