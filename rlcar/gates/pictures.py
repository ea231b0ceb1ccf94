"""Draws the result of the gate of simulation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlcar.evaluation.pictures import save_figure
from rlcar.gates.paired import GateResult, PairedCosts

_GOOD, _BAD, _TRACK, _INK = "#2f8f4e", "#d1242f", "#aab2bb", "#24292f"


def draw_simulation(path: Path, result: GateResult, costs: Mapping[str, PairedCosts]) -> None:
    """Draws a row for each world: the improvement of every track, and the interval of its mean."""
    worlds, figures = result.figures["worlds"], result.figures
    figure = Figure(
        figsize=(8.0, 1.8 + 0.5 * (len(worlds) + 1)),
        dpi=130, layout="constrained", facecolor="white",
    )  # fmt: skip
    axes = figure.subplots()
    axes.axvline(0.0, color=_INK, linewidth=1.0)
    if figures["margin"]:
        axes.axvline(-figures["margin"], color=_INK, linewidth=1.0, linestyle="dashed")
    for row, (name, one) in enumerate(costs.items()):
        improvement = (one.stable - one.candidate).mean(axis=1)
        # A fixed pattern, so that equal results give equal pictures.
        height = row + 0.3 * (np.arange(len(improvement)) % 7 / 6 - 0.5)
        axes.scatter(improvement, height, s=6, color=_TRACK, linewidths=0, zorder=1)
        _draw_interval(axes, row, worlds[name]["improvement"], worlds[name]["is_worse"])
    _draw_interval(axes, len(worlds), figures["improvement"], not result.passed)
    axes.set(
        yticks=range(len(worlds) + 1), yticklabels=[*worlds, "all"],
        ylim=(len(worlds) + 0.5, -0.5),
        xlabel=f"improvement of the candidate [{figures['unit']}], mean with 95 % interval",
    )  # fmt: skip
    axes.set_xscale("symlog", linthresh=10.0)  # a crash costs hundreds of steps
    axes.set_title("passed" if result.passed else "not passed", fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_interval(axes: Axes, row: int, interval: Mapping[str, float], is_bad: bool) -> None:
    colour = _BAD if is_bad else _GOOD
    axes.plot([interval["low"], interval["high"]], [row, row], color=colour, linewidth=2.5)
    axes.plot(interval["mean"], row, marker="o", color=colour, markersize=6)
