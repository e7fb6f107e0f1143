"""Renders one emoji to the 32x32 RGB picture of the data set."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmeta.trainer.datasets.icons.render import Icon, draw

IMAGE_SIZE: Final = 32  # pixels, height and width
PAINT_SIZE: Final = 28  # the longer side of the bounding box of all paint after fitting, pixels
_CANVAS_SIZE: Final = 256  # the longer side of the first rendering, pixels: about eight samples per final pixel
_PAINT_THRESHOLD: Final = 32  # opacity (of 255) from which a canvas pixel counts as paint for the bounding box
_LEVELS: Final = 32  # of each colour: enough for the eye at this size, and 40 % off the file


def render_emoji(icon: Icon) -> NDArray[np.uint8] | None:
    """Returns the emoji on white, (32, 32, 3) RGB; None if it draws nothing.

    Sets pad their drawings differently, so the paint's bounding box is fitted: its longer side becomes 28 pixels,
    aspect ratio kept, centred. Pixels are the exact area average of a rendering at about eight times the size.
    """
    canvas = draw(icon, _CANVAS_SIZE, None).convert("RGBA")
    paint = np.asarray(canvas.getchannel("A")) >= _PAINT_THRESHOLD
    rows, columns = (np.flatnonzero(paint.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    padded = Image.new("RGBA", (3 * _CANVAS_SIZE, 3 * _CANVAS_SIZE), "white")
    padded.alpha_composite(canvas, (_CANVAS_SIZE, _CANVAS_SIZE))
    side = max(bottom - top, right - left) * IMAGE_SIZE / PAINT_SIZE
    centre_y, centre_x = (top + bottom) / 2 + _CANVAS_SIZE, (left + right) / 2 + _CANVAS_SIZE
    square = (centre_x - side / 2, centre_y - side / 2, centre_x + side / 2, centre_y + side / 2)
    fitted = padded.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX, box=square)
    levels = (np.asarray(fitted, np.uint16) * (_LEVELS - 1) + 127) // 255
    return ((levels * 255 + (_LEVELS - 1) // 2) // (_LEVELS - 1)).astype(np.uint8)
