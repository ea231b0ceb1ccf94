"""Draws the episodes of a compiled environment: quantities over time, and where episodes ended."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rlcar.evaluation.episodes import EpisodeResults
from rlcar.evaluation.pictures import save_figure

_SHOWN = 48  # episodes in a picture; more lines hide each other
_SUCCESS, _FAILURE, _INK = "#2f8f4e", "#d1242f", "#24292f"


def draw_views(path: Path, results: EpisodeResults, step_s: float, title: str) -> None:
    """Draws every quantity of the view over time: successes in green, failures in red."""
    names = list(results.view)
    rows = (len(names) + 1) // 2
    figure = Figure(figsize=(10.0, 2.2 * rows), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.02, ha="left", color=_INK, weight="bold")
    for axes, name in zip(
        figure.subplots(rows, 2, squeeze=False, sharex=True).flat, names, strict=False
    ):
        lines = results.view[name][:, :_SHOWN]
        time_s = step_s * np.arange(len(lines))
        for line, is_success in zip(lines.T, results.is_success, strict=False):
            axes.plot(time_s, line, color=_SUCCESS if is_success else _FAILURE, lw=0.7, alpha=0.6)
        axes.set(ylabel=name.replace("_", " "), xlabel="time [s]")
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_ends(path: Path, results: EpisodeResults, place: tuple[str, str], title: str) -> None:
    """Draws where each episode ended: successes in green, failures in red."""
    figure = Figure(figsize=(6.0, 6.0), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.02, ha="left", color=_INK, weight="bold", fontsize=9)
    axes = figure.subplots()
    x, y = (results.figures[name] for name in place)
    for is_success, colour, label in ((False, _FAILURE, "failed"), (True, _SUCCESS, "succeeded")):
        chosen = results.is_success == is_success
        axes.scatter(x[chosen], y[chosen], s=10, color=colour, label=label)
    axes.axhline(0.0, color=_INK, lw=0.5)
    axes.axvline(0.0, color=_INK, lw=0.5)
    axes.set(xlabel=place[0].replace("_", " "), ylabel=place[1].replace("_", " "), aspect="equal")
    axes.legend(frameon=False)
    save_figure(figure, path)
