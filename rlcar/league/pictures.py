"""Draws a league: ratings with intervals, and who wins against whom."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlcar.evaluation.pictures import save_figure

_BAR, _INK = "#1f6feb", "#24292f"


def draw_league(path: Path, drivers: Sequence[Mapping[str, Any]], wins: np.ndarray) -> None:
    """Draws the drivers from the best to the worst; `wins` `[D, D]` are shares, NaN if not raced.

    A row of `wins` is a driver, a column its opponent. A draw counts half.
    """
    names = [driver["name"] for driver in drivers]
    rows = np.arange(len(names))
    figure = Figure(
        figsize=(9.0, 2.2 + 0.45 * len(names)), dpi=130, layout="constrained", facecolor="white"
    )
    left, right = figure.subplots(1, 2)
    for place, driver in enumerate(drivers):
        low, high = driver["rating_interval"]
        left.plot([low, high], [place, place], color=_BAR, linewidth=2.5)
        left.plot(driver["rating"], place, marker="o", color=_BAR, markersize=6)
    left.set(yticks=rows, yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    left.set_xlabel("rating, with mean +- two standard deviations")
    left.spines[["top", "right"]].set_visible(False)
    right.imshow(np.ma.masked_invalid(wins), vmin=0.0, vmax=1.0, cmap="RdBu", aspect="auto")
    for row in rows:
        for column in rows:
            if np.isfinite(wins[row, column]):
                text = f"{100 * wins[row, column]:.0f} %"
                right.text(column, row, text, ha="center", va="center", color=_INK, fontsize=8)
    right.set(xticks=rows, yticks=rows, yticklabels=names)
    right.set_xticklabels(names, rotation=30, ha="right")
    right.set_xlabel("opponent")
    right.set_title("share of races won", fontsize=9, loc="left")
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    save_figure(figure, path)
