"""How all pictures look: matplotlib's settings."""

from __future__ import annotations

from typing import Any, Final

FONT_SIZE: Final = 8

STYLE: Final[dict[Any, Any]] = {
    "font.size": FONT_SIZE, "axes.titlesize": FONT_SIZE, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "font.family": "DejaVu Sans",
}  # fmt: skip
