"""Renders one icon to the 28x28 bitmap of the data set."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

IMAGE_SIZE: Final = 28  # pixels, height and width
INK_SIZE: Final = 24  # the longer side of the ink's bounding box after fitting, pixels
_CANVAS_SIZE: Final = 192  # the longer side of the first rendering, pixels: eight samples per final pixel
_INK_THRESHOLD: Final = 32  # coverage (of 255) from which a canvas pixel counts as ink for the bounding box
_LEVELS: Final = 16  # grey levels kept: enough for anti-aliasing, and half the file size


@dataclass(frozen=True)
class Icon:
    """The SVG body of one icon and its view box, in the body's own units."""

    body: str
    left: float
    top: float
    width: float
    height: float


def render_icon(icon: Icon) -> NDArray[np.uint8] | None:
    """Returns ink coverage (28, 28), 255 = ink on 0 = background; None if the icon draws (almost) nothing.

    Sets pad their icons differently, so the ink's bounding box is fitted: its longer side becomes 24 pixels,
    aspect ratio kept, centred. Pixels are the exact area average of a rendering at about eight times the size.
    """
    canvas = _coverage(icon)
    rows, columns = (np.flatnonzero((canvas >= _INK_THRESHOLD).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) * IMAGE_SIZE / INK_SIZE
    if side < IMAGE_SIZE:  # a speck: too little to enlarge
        return None
    padded = Image.fromarray(np.pad(canvas, _CANVAS_SIZE))
    centre_y, centre_x = (top + bottom) / 2 + _CANVAS_SIZE, (left + right) / 2 + _CANVAS_SIZE
    square = (centre_x - side / 2, centre_y - side / 2, centre_x + side / 2, centre_y + side / 2)
    fitted = padded.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX, box=square)
    step = 255 // (_LEVELS - 1)
    return ((np.asarray(fitted, dtype=np.uint16) + step // 2) // step * step).astype(np.uint8)


def _coverage(icon: Icon) -> NDArray[np.uint8]:
    """Returns the ink of the icon drawn in black on white, its longer side 192 pixels; white paint is no ink."""
    return 255 - np.asarray(draw(icon, _CANVAS_SIZE, "#fff").convert("L"))


def draw(icon: Icon, longer_side: int, background: str | None) -> Image.Image:
    """Returns the icon, in black where it names no colour, `longer_side` pixels wide or high.

    background: a colour, or None for transparent.
    """
    zoom = longer_side / max(icon.width, icon.height)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'width="{icon.width * zoom:.3f}" height="{icon.height * zoom:.3f}" '
        f'viewBox="{icon.left} {icon.top} {icon.width} {icon.height}">{icon.body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, background=background, skip_system_fonts=True)
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image
