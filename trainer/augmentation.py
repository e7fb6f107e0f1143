"""Augmentation of training pictures: new classes by symmetry, and small changes of single samples."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.errors import ConfigError
from pmeta.trainer.config import AugmentationConfig

LATTICE = 4  # points in each axis whose displacements bend a picture, evenly spread over it


@dataclass(frozen=True)
class Changes:
    """What happens to the samples of T tasks, S samples of each class."""

    symmetry: npt.NDArray[np.int64]  # (T, ways), number of one of the symmetries that make new classes
    shift: npt.NDArray[np.int64]  # (T, ways, S, 2), rows and columns
    warp: npt.NDArray[np.float32] | None  # (T, ways, S, 2, 2): target to source, about the middle; None: none
    bend: npt.NDArray[np.float32] | None = None  # (T, ways, S, 2, LATTICE, LATTICE), columns and rows; None: none
    negated: npt.NDArray[np.bool_] | None = None  # (T, ways, C): channels whose sign changes; None: none

    def share(self, tasks: slice) -> Changes:
        """Those of some of the tasks."""
        parts: dict[str, Any] = {}
        for part in fields(self):
            drawn = getattr(self, part.name)
            parts[part.name] = None if drawn is None else drawn[tasks]
        return Changes(**parts)


class Augmentation:
    """Draws changes and applies them to pictures of one size."""

    def __init__(self, config: AugmentationConfig, shape: tuple[int, ...], device: torch.device) -> None:
        """shape: of one sample. Raises ConfigError where samples are no pictures, or cannot be turned."""
        self._config = config
        self.active = config != AugmentationConfig()
        if self.active:
            if len(shape) not in (2, 3):
                what = "augments pictures and series, not single features"
                raise ConfigError(what, "[augmentation]", "leave it out for this data set")
            self._channels, self._size = shape[0], shape[1:] if len(shape) == 3 else (1, *shape[1:])
            self._symmetries = _symmetry_maps(self._size, config).to(device)

    def draw(self, shape: tuple[int, int, int], rng: np.random.Generator) -> Changes:
        """Changes for (T, ways, S) samples."""
        config = self._config
        symmetries = len(self._symmetries) if self.active else 1
        return Changes(
            symmetry=rng.integers(0, symmetries, shape[:2]),
            shift=rng.integers(-config.shift, config.shift + 1, (*shape, 2)),
            warp=_warps(config, shape, rng),
            bend=_bends(config, shape, rng),
            negated=rng.random((*shape[:2], self._channels)) < 0.5 if config.negate_channels else None,
        )

    def apply(self, raw: Tensor, changes: Changes) -> Tensor:
        """(T, ways, S, C, H, W) or (T, ways, S, C, L) → changed; uint8 becomes float32 of the same range by a warp."""
        if not self.active:
            return raw
        return self._changed(raw.reshape(*raw.shape[:3], self._channels, *self._size), changes).reshape(raw.shape)

    def _changed(self, raw: Tensor, changes: Changes) -> Tensor:
        if changes.negated is not None:
            negated = torch.from_numpy(changes.negated).to(raw.device)[:, :, None, :, None, None]
            raw = torch.where(negated, -1 - raw if raw.dtype == torch.uint8 else -raw, raw)  # -1 - u is 255 - u
        samples, channels, height, width = raw.shape[2:]
        symmetry, shift = (torch.from_numpy(a).to(raw.device) for a in (changes.symmetry, changes.shift))
        # Target pixel (r, c) shows source pixel symmetry(clamp((r, c) - shift)).
        rows = (torch.arange(height, device=raw.device) - shift[..., :1]).clamp(0, height - 1)
        columns = (torch.arange(width, device=raw.device) - shift[..., 1:]).clamp(0, width - 1)
        pixels = (rows[..., :, None] * width + columns[..., None, :]).flatten(3)  # (T, ways, S, H·W)
        maps = self._symmetries[symmetry][:, :, None].expand(-1, -1, samples, -1)
        source = maps.gather(3, pixels)[:, :, :, None].expand(-1, -1, -1, channels, -1)
        moved = raw.flatten(4).gather(4, source).reshape(raw.shape)
        if changes.warp is None and changes.bend is None:
            return moved
        warp, bend = (None if a is None else torch.from_numpy(a).to(raw.device) for a in (changes.warp, changes.bend))
        return _warped(moved, warp, bend)


def _warps(
    config: AugmentationConfig, shape: tuple[int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32] | None:
    """Of each sample, in a class that is warped as a whole; None where nothing is."""
    of_sample = (config.angle, config.zoom, config.shear)
    of_class = (config.class_angle, config.class_zoom, config.class_shear)
    if not any(of_sample + of_class):
        return None
    warp = _drawn_warps(of_sample, shape, rng)
    if any(of_class):
        warp = _drawn_warps(of_class, (*shape[:2], 1), rng) @ warp
    return np.asarray(warp, np.float32)


def _drawn_warps(
    most: tuple[float, float, float], shape: tuple[int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Turn · slant · size, each drawn evenly from its range: (*shape, 2, 2). most: angle, zoom, shear."""
    angle = np.deg2rad(rng.uniform(-most[0], most[0], shape))
    slant = rng.uniform(-most[2], most[2], shape)
    zoom = 1.0 / rng.uniform(1 - most[1], 1 + most[1], (*shape, 2))
    cosine, sine, zero, one = np.cos(angle), np.sin(angle), np.zeros(shape), np.ones(shape)
    turn = np.stack([cosine, -sine, sine, cosine], -1).reshape(*shape, 2, 2)
    shear = np.stack([one, slant, zero, one], -1).reshape(*shape, 2, 2)
    return np.asarray(turn @ shear * zoom[..., None, :])


def _bends(
    config: AugmentationConfig, shape: tuple[int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32] | None:
    """Displacements of the lattice's points in pixels, of a class as a whole and of each sample; None where none are.

    The elastic distortions of Simard, Steinkraus and Platt (ICDAR 2003), drawn on a lattice instead of for each pixel.
    A class's are looked up where a pixel goes, not where it comes from: samples that are changed otherwise too are bent
    alike but for their shifts, turns and sizes.
    """
    if not (config.bend or config.class_bend):
        return None
    points = (2, LATTICE, LATTICE)
    of_sample = rng.uniform(-config.bend, config.bend, (*shape, *points))
    of_class = rng.uniform(-config.class_bend, config.class_bend, (*shape[:2], 1, *points))
    return np.asarray(of_sample + of_class, np.float32)


def _warped(pictures: Tensor, warp: Tensor | None, bend: Tensor | None) -> Tensor:
    """Bilinear, edges repeated; float32."""
    flat = pictures.flatten(0, 2).float()
    matrices = torch.eye(2, device=flat.device).expand(len(flat), 2, 2) if warp is None else warp.flatten(0, 2)
    no_translation = F.pad(matrices, (0, 1))  # shifts have been applied
    grid = F.affine_grid(no_translation, list(flat.shape), align_corners=False)
    if bend is not None:
        height, width = size = flat.shape[2:]
        pixels = F.interpolate(bend.flatten(0, 2), tuple(size), mode="bicubic", align_corners=True)
        whole = torch.tensor([width, height], device=flat.device) / 2  # a picture spans -1 to 1 in the grid
        grid = grid + pixels.movedim(1, 3) / whole
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False).reshape(pictures.shape)


def _symmetry_maps(size: tuple[int, ...], config: AugmentationConfig) -> Tensor:
    """(number of symmetries, H·W): where each pixel of the transformed picture comes from."""
    height, width = size
    if config.rotate_classes and height != width:
        raise ConfigError(
            f"pictures of {height}x{width} cannot be rotated", "[augmentation]", "set rotate_classes = false"
        )
    identity = torch.arange(height * width).reshape(height, width)
    flips = [identity, identity.flip(1)] if config.flip_classes else [identity]
    turns = range(4) if config.rotate_classes else range(1)
    return torch.stack([torch.rot90(picture, turn).flatten() for picture in flips for turn in turns])
