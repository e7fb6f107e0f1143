"""The comparison as a picture: accuracy against memory, one panel for each kind of task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.files import replacement
from pmeta.trainer.comparison.costs import Costs
from pmeta.trainer.comparison.table import Comparison, Group, Row
from pmeta.trainer.picture_style import FONT_SIZE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

PANEL = (3.6, 2.9)  # inches
DPI = 300
LINE = 1.25  # height of a label's line, in font sizes
LETTER = 0.58  # width of a letter, in font sizes
GAP = 6  # points between a marker and its label
BOUND = "only the last layer learns"
# Colours that people with any colour vision tell apart (Okabe and Ito), and markers for print without colours.
STYLES = {
    "maml": ("#56B4E9", "s"), "anil": ("#E69F00", "v"), "boil": ("#CC79A7", "^"), "maml++": ("#0072B2", "D"),
    "p-meta-3.2": ("#009E73", "o"), "p-meta-3.2+3.3": ("#D55E00", "o"),
}  # fmt: skip
OTHER = ("#555555", "P")
GREY = "#888888"


@dataclass(frozen=True)
class Point:
    """A row and its costs."""

    row: Row
    costs: Costs

    @property
    def place(self) -> tuple[float, float]:
        """(kB, %)"""
        return self.costs.paper.memory_bytes / 1000, 100 * self.row.in_domain.mean

    @property
    def interval(self) -> float:
        """%"""
        return 100 * self.row.in_domain.interval

    @property
    def style(self) -> tuple[str, str]:
        """(colour, marker)"""
        return STYLES.get(self.row.method, OTHER)


def save_picture(comparison: Comparison, path: Path) -> None:
    """Write a PNG of the rows that have costs, at least one. Raises OSError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = with_costs(comparison)
    with pyplot.rc_context(STYLE):
        size = (PANEL[0] * len(groups), PANEL[1])
        figure, panels = pyplot.subplots(1, len(groups), figsize=size, squeeze=False, layout="constrained")
        try:
            for axes, (group, points) in zip(panels[0], groups.items(), strict=True):
                _panel(axes, group, points)
            panels[0][0].set_ylabel("accuracy after adaptation, %")
            figure.draw_without_rendering()  # settles where everything lies
            for axes, points in zip(panels[0], groups.values(), strict=True):
                _labels(axes, points)
            with replacement(path) as temporary:
                figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)


def with_costs(comparison: Comparison) -> dict[Group, list[Point]]:
    """What the picture shows, by panel."""
    points = {
        group: [Point(row, row.costs) for row in rows if row.costs is not None]
        for group, rows in comparison.groups.items()
    }
    return {group: found for group, found in points.items() if found}


def _panel(axes: Axes, group: Group, points: Sequence[Point]) -> None:
    """Points with their intervals; a line where nothing but the last layer learns."""
    for point in points:
        colour, marker = point.style
        x, y = point.place
        axes.errorbar(x, y, point.interval, color=colour, marker=marker, markersize=4.5, capsize=2.5, elinewidth=0.9)
    bounds = {round(point.costs.paper_last.memory_bytes / 1000, 1) for point in points}
    for bound in bounds:
        axes.axvline(bound, color=GREY, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            BOUND, (bound, 0), (-3, 4), xycoords=("data", "axes fraction"), textcoords="offset points", rotation=90,
            ha="right", va="bottom", color=GREY, fontsize=FONT_SIZE - 2,
        )  # fmt: skip
    axes.set_title(group.title, fontsize=FONT_SIZE)
    axes.set_xlabel("peak memory in the paper's accounting, kB")
    axes.set_xlim(0, 1.3 * max(max(point.place[0] for point in points), *bounds))
    axes.margins(y=0.12)
    low, high = axes.get_ylim()  # two seeds can have an interval far beyond
    axes.set_ylim(max(low, -3), min(high, 103))


def _labels(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside the points; where they would overlap they are moved apart, upwards and downwards."""
    scale = axes.figure.dpi / 72  # pixels per point
    line = FONT_SIZE * LINE * scale
    box = axes.get_window_extent()
    places = np.array([axes.transData.transform(point.place) for point in points])
    pixels_per_percent = axes.transData.get_matrix()[1, 1]
    bars = np.array([point.interval * pixels_per_percent for point in points])
    widths = np.array([len(point.row.name) * FONT_SIZE * LETTER * scale for point in points])
    starts = _starts(places, bars + line / 2, widths, GAP * scale, box.x0, box.x1)
    for chosen in _overlapping(starts, starts + widths):
        heights = spread(places[chosen, 1], line, box.y0 + line / 2, box.y1 - line / 2)
        for index, height in zip(chosen, heights, strict=True):
            on_left = bool(starts[index] < places[index, 0])
            end = starts[index] + (widths[index] if on_left else 0), height
            _label(axes, points[index], on_left, (np.array(end) - places[index]) / scale)


def _starts(places: Floats, reach: Floats, widths: Floats, gap: float, lowest: float, highest: float) -> Floats:
    """Where each label starts, in pixels: right of its point; left where another point or the end of the panel is in
    the way and there is room; else right of that point.

    places: (N, 2). reach: how far up and down from its point each bar is in the way of a label.
    """
    starts = places[:, 0] + gap
    for index, (x, y) in enumerate(places):
        level = np.abs(places[:, 1] - y) < reach
        right = level & (places[:, 0] > x + gap / 2) & (places[:, 0] < x + 2 * gap + widths[index])
        left = level & (places[:, 0] < x - gap / 2) & (places[:, 0] > x - 2 * gap - widths[index])
        room = x - gap - widths[index] > lowest and not left.any()
        if (right.any() or x + gap + widths[index] > highest) and room:
            starts[index] = x - gap - widths[index]
        elif right.any():
            starts[index] = places[right, 0].max() + gap
    return starts


def _overlapping(starts: Floats, ends: Floats) -> Iterator[NDArray[np.intp]]:
    """Indices of the intervals that overlap, directly or through others."""
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate(ends[order])
    yield from np.split(order, np.flatnonzero(starts[order][1:] >= reach[:-1]) + 1)


def _label(axes: Axes, point: Point, on_left: bool, shift: Floats) -> None:
    """The name of a row, ending or starting `shift` points from its marker; where that is far, a thin line to it."""
    colour, _ = point.style
    arrow: dict[str, Any] | None = None
    if abs(shift[0]) > 2 * GAP or abs(shift[1]) > FONT_SIZE * LINE / 2:
        shift = shift + [-GAP if on_left else GAP, 0]
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        point.row.name, point.place, tuple(shift), textcoords="offset points", color=colour, arrowprops=arrow,
        ha="right" if on_left else "left", va="center",
    )  # fmt: skip


def spread(wanted: Floats, gap: float, lowest: float, highest: float) -> Floats:
    """Heights near the wanted ones, in their order, at least `gap` apart, within `lowest` to `highest` if they fit.

    Neighbours that are too close become one block around the mean of what they want, as often as needed.
    """
    order = np.argsort(wanted, kind="stable")
    blocks: list[list[float]] = []  # each: what its members want, ascending

    def bottom(block: list[float]) -> float:
        height = gap * (len(block) - 1)
        return min(max(float(np.mean(block)) - height / 2, lowest), highest - height)

    for value in wanted[order]:
        blocks.append([float(value)])
        while len(blocks) > 1 and bottom(blocks[-1]) < bottom(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    placed = [bottom(block) + gap * number for block in blocks for number in range(len(block))]
    heights = np.empty(len(wanted))
    heights[order] = placed
    return heights
