"""Channel statistics as a picture, laid out like Fig. 5 of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmeta.codegen.files import replacement
from pmeta.trainer.channel_statistics import ChannelStatistics
from pmeta.trainer.picture_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_PER_ROW = 4  # at most; rows are as even as can be
DPI = 200
UPDATING, SIMILARITY = "#0072B2", "#D55E00"  # two colours that people with any colour vision tell apart


def save_picture(statistics: ChannelStatistics, path: Path) -> None:
    """Write a PNG: a panel with the updating ratios for every step, and one with the similarities. Raises OSError."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers, steps = statistics.layers, len(statistics.ratio_mean)
    rows = -(-(steps + 1) // PANELS_PER_ROW)
    columns = -(-(steps + 1) // rows)
    with matplotlib.rc_context(STYLE):
        size = (columns * max(2.4, 0.22 * len(layers)), rows * 2.1 + 0.2)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for k, axes in enumerate(panels[:steps]):
            _bars(axes, layers, statistics.ratio_mean[k], statistics.ratio_deviation[k], UPDATING)
            axes.set_title(f"weights updated in step {k + 1}", color=UPDATING)
        _bars(panels[steps], layers, statistics.similarity_mean, statistics.similarity_deviation, SIMILARITY)
        panels[steps].set_title("similarity of γ between samples, step 1", color=SIMILARITY)
        for axes in panels[steps + 1 :]:
            axes.axis("off")
        panels[0].set_ylim(0, 1.05)
        with replacement(path) as temporary:
            FigureCanvasAgg(figure).print_figure(temporary, dpi=DPI, format="png", metadata={"Software": None})


def _bars(
    axes: Axes, layers: tuple[str, ...], means: tuple[float | None, ...], deviations: tuple[float | None, ...],
    colour: str,
) -> None:  # fmt: skip
    """One bar per layer with its deviation; a cross where there is nothing to show."""
    places = np.arange(len(layers))
    known = [place for place in places if means[place] is not None]
    values = np.array([means[place] for place in known], dtype=float)
    errors = np.array([deviations[place] for place in known], dtype=float)
    # A share lies between 0 and 1, and so does what is drawn of its deviation.
    reach = np.stack([np.minimum(errors, values), np.minimum(errors, 1 - values)])
    axes.bar(known, values, 0.7, color=colour, alpha=0.75)
    spread = errors > 0
    axes.errorbar(
        np.array(known)[spread], values[spread], reach[:, spread], fmt="none", ecolor="black", elinewidth=0.8, capsize=2
    )
    missing = [place for place in places if means[place] is None]
    axes.plot(missing, [0.02] * len(missing), "x", color="#888888", markersize=3)
    axes.set_xticks(places, layers, rotation=90, fontsize=7 if len(layers) < 20 else 5)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.yaxis.grid(visible=True, linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
