"""Draws an episode as a picture, for documentation and for a look at one's own data."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pmeta.codegen.report.text import count_text
from pmeta.trainer.datasets.base import Background
from pmeta.trainer.datasets.episodes import Episode

# Lengths in screen pixels.
_CONTENT: Final = 84  # side of a sample at least; small pictures are magnified a whole number of times
_PADDING: Final = 12  # between a tile's edge and its image
_GAP: Final = 12  # between tiles
_MARGIN: Final = 40
_HEADING: Final = 44
_SECTION_GAP: Final = 32
_NAME_COLUMNS: Final = 2  # tiles wide: the space for class names
_CHIP: Final = 5  # thickness of the bar that shows the class
_RADIUS: Final = 12

_Colour = tuple[int, int, int]
_PAPER: Final[_Colour] = (255, 255, 255)
_TILE: Final[_Colour] = (243, 245, 248)
_INK: Final[_Colour] = (24, 29, 36)
_MUTED: Final[_Colour] = (112, 119, 129)
# One per class, repeating; told apart with the common kinds of colour blindness too.
_CLASS_COLOURS: Final[tuple[_Colour, ...]] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
)


def draw_episode(
    episode: Episode, query_rows: int = 2, seed: int = 0, background: Background | None = "dark"
) -> Image.Image:
    """Returns a picture: a row of support samples per class, and below them some queries in random order.

    Grey pictures on a dark background are drawn as dark ink, series as a line per channel. A bar in the colour of its
    class marks each query; where there are more classes than colours, so does its number.
    """
    ways, shots = episode.ways, len(episode.support_y) // episode.ways
    limits = float(episode.support_x.min()), float(episode.support_x.max())  # of series

    def content(sample: NDArray[Any]) -> Image.Image:
        return _pixels(sample, background) if sample.ndim == 3 else _lines(sample, limits)

    tile = content(episode.support_x[0]).width + 2 * _PADDING
    step = tile + _GAP
    columns = _NAME_COLUMNS + shots
    shown = np.random.default_rng(seed).permutation(len(episode.query_y))[: query_rows * columns]
    support_top = _MARGIN + _HEADING
    query_top = support_top + ways * step + _SECTION_GAP + _HEADING
    size = (2 * _MARGIN + columns * step - _GAP, query_top + -(-len(shown) // columns) * step - _GAP + _MARGIN)
    canvas = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(canvas)

    numbered = ways > len(_CLASS_COLOURS)
    _heading(pen, _MARGIN, "Support set", f"{count_text(ways, 'way')}, {count_text(shots, 'shot')}: learn these")
    for index, label in enumerate(episode.support_y):
        row, column = int(label), index // ways
        x, y = _MARGIN + (_NAME_COLUMNS + column) * step, support_top + row * step
        _tile(canvas, x, y, tile, content(episode.support_x[index]))
    for label, name in enumerate(episode.class_names):
        y = support_top + label * step
        pen.rounded_rectangle((_MARGIN, y, _MARGIN + _CHIP, y + tile - 1), _CHIP / 2, _class_colour(label))
        text = f"{label + 1}  {name}" if numbered else name
        _name(pen, _MARGIN + 20, y + tile / 2, _NAME_COLUMNS * step - 20 - _GAP, text)

    _heading(pen, query_top - _HEADING, "Query set", "then tell which is which")
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        x, y = _MARGIN + column * step, query_top + row * step
        _tile(canvas, x, y, tile, content(episode.query_x[index]))
        label = int(episode.query_y[index])
        if numbered:
            pen.text((x + 6, y + 4), str(label + 1), _class_colour(label), _font(16), anchor="lt")
        bar = (x + tile // 4, y + tile - _CHIP - 1, x + tile - tile // 4, y + tile - 1)
        pen.rounded_rectangle(bar, _CHIP / 2, _class_colour(label))
    return canvas


def _heading(pen: ImageDraw.ImageDraw, y: int, title: str, remark: str) -> None:
    pen.text((_MARGIN, y + 14), title, _INK, _font(25), anchor="lm")
    end = _MARGIN + pen.textlength(title, _font(25))
    pen.text((end + 14, y + 15), remark, _MUTED, _font(20), anchor="lm")


def _name(pen: ImageDraw.ImageDraw, x: float, y: float, width: float, name: str) -> None:
    """In a size that fits; cut short where even the smallest does not."""
    size = next((size for size in range(22, 13, -2) if pen.textlength(name, _font(size)) <= width), 14)
    shown = name
    while pen.textlength(shown, _font(size)) > width:
        shown = shown[:-2] + "…"
    pen.text((x, y), shown, _INK, _font(size), anchor="lm")


def _tile(canvas: Image.Image, x: int, y: int, size: int, content: Image.Image) -> None:
    ImageDraw.Draw(canvas).rounded_rectangle((x, y, x + size - 1, y + size - 1), _RADIUS, _TILE)
    canvas.paste(content, (x + _PADDING, y + (size - content.height) // 2))


def _pixels(sample: NDArray[Any], background: Background | None) -> Image.Image:
    """(C, H, W): grey on dark as dark ink, else as it is; other channels than the first three are left out."""
    levels = sample if sample.dtype == np.uint8 else _levels(sample)
    if len(sample) < 3:
        coverage = levels[0] if background == "dark" else 255 - levels[0]
        picture = Image.composite(
            Image.new("RGB", coverage.shape[::-1], _INK),
            Image.new("RGB", coverage.shape[::-1], _TILE),
            Image.fromarray(np.ascontiguousarray(coverage)),
        )
    else:
        picture = Image.fromarray(np.ascontiguousarray(levels[:3].transpose(1, 2, 0)))
    zoom = max(1, round(_CONTENT / picture.width))
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def _levels(sample: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(sample.min()), float(sample.max())
    return np.asarray((sample - low) / max(high - low, 1e-9) * 255, np.uint8)


def _lines(sample: NDArray[Any], limits: tuple[float, float]) -> Image.Image:
    """(C, L) as a line per channel; (C,) as one line over the channels."""
    scale, series = 4, sample[None] if sample.ndim == 1 else sample
    canvas = Image.new("RGB", (_CONTENT * scale, _CONTENT * scale), _TILE)
    pen, side = ImageDraw.Draw(canvas), _CONTENT * scale - 1
    span = max(limits[1] - limits[0], 1e-9)
    for channel, line in enumerate(series):
        x = np.linspace(0, side, len(line))
        y = side - (np.clip(line, *limits) - limits[0]) / span * side
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), _class_colour(channel), width=scale)
    return canvas.resize((_CONTENT, _CONTENT), Image.Resampling.LANCZOS)


def _class_colour(label: int) -> _Colour:
    return _CLASS_COLOURS[label % len(_CLASS_COLOURS)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
