"""Draws an episode as a picture, for documentation and for a look at one's own data.

python -m pmeta.trainer.datasets.picture docs/images/icons-episode.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pmeta.trainer.datasets.episodes import Episode, sample_episode
from pmeta.trainer.datasets.icons import load_icons

# Lengths in screen pixels.
_ZOOM: Final = 3  # screen pixels per image pixel
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


def draw_episode(episode: Episode, query_rows: int = 2, seed: int = 0) -> Image.Image:
    """Returns a picture: a row of support samples per class, and below them some queries in random order.

    Images are read as ink coverage (255 = ink, as in the icons data set); only the first channel is shown. A bar in
    the colour of its class marks each query.
    """
    ways, shots = episode.ways, len(episode.support_y) // episode.ways
    tile = episode.support_x.shape[-1] * _ZOOM + 2 * _PADDING
    step = tile + _GAP
    columns = _NAME_COLUMNS + shots
    shown = np.random.default_rng(seed).permutation(len(episode.query_y))[: query_rows * columns]
    support_top = _MARGIN + _HEADING
    query_top = support_top + ways * step + _SECTION_GAP + _HEADING
    size = (2 * _MARGIN + columns * step - _GAP, query_top + -(-len(shown) // columns) * step - _GAP + _MARGIN)
    canvas = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(canvas)

    _heading(pen, _MARGIN, "Support set", f"{ways} ways, {shots} shots: learn these")
    for index, label in enumerate(episode.support_y):
        row, column = int(label), index // ways
        x, y = _MARGIN + (_NAME_COLUMNS + column) * step, support_top + row * step
        _tile(canvas, x, y, tile, episode.support_x[index, 0])
    for label, name in enumerate(episode.class_names):
        y = support_top + label * step
        pen.rounded_rectangle((_MARGIN, y, _MARGIN + _CHIP, y + tile - 1), _CHIP / 2, _class_colour(label))
        pen.text((_MARGIN + 20, y + tile / 2), name, _INK, _font(22), anchor="lm")

    _heading(pen, query_top - _HEADING, "Query set", "then tell which is which")
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        x, y = _MARGIN + column * step, query_top + row * step
        _tile(canvas, x, y, tile, episode.query_x[index, 0])
        bar = (x + tile // 4, y + tile - _CHIP - 1, x + tile - tile // 4, y + tile - 1)
        pen.rounded_rectangle(bar, _CHIP / 2, _class_colour(int(episode.query_y[index])))
    return canvas


def _heading(pen: ImageDraw.ImageDraw, y: int, title: str, remark: str) -> None:
    pen.text((_MARGIN, y + 14), title, _INK, _font(25), anchor="lm")
    end = _MARGIN + pen.textlength(title, _font(25))
    pen.text((end + 14, y + 15), remark, _MUTED, _font(20), anchor="lm")


def _tile(canvas: Image.Image, x: int, y: int, size: int, image: NDArray[np.uint8]) -> None:
    ImageDraw.Draw(canvas).rounded_rectangle((x, y, x + size - 1, y + size - 1), _RADIUS, _TILE)
    height, width = image.shape
    coverage = Image.fromarray(image).resize((width * _ZOOM, height * _ZOOM), Image.Resampling.NEAREST)
    canvas.paste(_INK, (x + _PADDING, y + _PADDING), coverage)


def _class_colour(label: int) -> _Colour:
    return _CLASS_COLOURS[label % len(_CLASS_COLOURS)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def main(
    out: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    ways: Annotated[int, typer.Option(min=2, help="Classes.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support samples per class.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which episode.")] = 0,
) -> None:
    """Draws an episode of the icons test split. Example: python -m pmeta.trainer.datasets.picture episode.png"""
    episode = sample_episode(load_icons("test"), ways, shots, 5, np.random.default_rng(seed))
    draw_episode(episode).save(out, optimize=True)


if __name__ == "__main__":
    typer.run(main)
