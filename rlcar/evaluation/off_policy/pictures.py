"""Draws the report of an off-policy evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from rlcar.evaluation.pictures import save_figure

_COLOURS = {"better": "#2f8f4e", "worse": "#d1242f", "unknown": "#6e7781"}
_INK, _BLUE = "#24292f", "#2563a8"
_MOST_LINES = 8  # policies in the plots of shares


def draw_report(path: Path, report: Mapping[str, Any]) -> None:
    """Draws the estimates; for the race also coverage and shares outside by speed and bend."""
    save_figure(report_figure(report), path)


def report_figure(report: Mapping[str, Any]) -> Figure:
    """Returns the picture of a report."""
    policies, coverage = report["policies"], report["coverage"]
    height = 1.6 + 0.32 * (len(policies) + (report["baseline"] is not None))
    if coverage is None:
        figure = Figure(figsize=(8.0, height), dpi=130, layout="constrained", facecolor="white")
        _draw_estimates(figure.subplots(), report)
    else:
        size = (9.0, height + 3.4)
        figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
        grid = figure.add_gridspec(2, 3, height_ratios=[height, 3.4])
        _draw_estimates(figure.add_subplot(grid[0, :]), report)
        cells, speed, bend = (figure.add_subplot(grid[1, column]) for column in range(3))
        _draw_coverage(cells, coverage)
        _draw_shares(speed, coverage["speed_edges"], policies, "speed", "speed / top speed")
        _draw_shares(bend, coverage["bend_edges"], policies, "bend", "bend (left > 0)")
        _, names = speed.get_legend_handles_labels()
        if names:
            speed.legend(fontsize=6, frameon=False)
    return figure


def _draw_estimates(axes: Axes, report: Mapping[str, Any]) -> None:
    """Draws a row for each policy, and lines at what the verdicts compare with.

    A baseline has the first row. Its estimate is the reference then, and not what was recorded.
    """
    baseline, recorded = report["baseline"], report["behaviour"]["return"]
    rows = [(name, one, _COLOURS[one["verdict"]]) for name, one in report["policies"].items()]
    about = "dashed: the recorded episodes"
    if baseline is None:
        reference, name = recorded, "the recorded behaviour"
    else:
        reference = None if baseline["estimate"] is None else baseline["estimate"]["mean"]
        name = f"the baseline {baseline['name']}"
        rows = [(f"{baseline['name']} (baseline)", baseline, _INK), *rows]
        axes.axvline(recorded, color=_COLOURS["unknown"], linewidth=1.0, linestyle="dotted")
        about = "dashed: the baseline; dotted: the recorded episodes"
    if reference is not None:
        axes.axvline(reference, color=_INK, linewidth=1.0, linestyle="dashed")
    for row, (_, result, colour) in enumerate(rows):
        _draw_estimate(axes, row, result, colour)
    axes.set(
        yticks=range(len(rows)), yticklabels=[each for each, _, _ in rows],
        ylim=(len(rows) - 0.5, -0.5),
        xlabel=f"estimated discounted return, 95 % interval; {about}",
    )  # fmt: skip
    title = f"compared with {name}: better green, worse red, unknown grey"
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_estimate(axes: Axes, row: int, result: Mapping[str, Any], colour: str) -> None:
    """Draws an estimate and its interval, or why there is none."""
    estimate = result["estimate"]
    if estimate is None:
        text = f"unknown: {result['reason'][:70]}"
        axes.text(0.02, row, text, transform=axes.get_yaxis_transform(), va="center",
                  fontsize=7, color=colour)  # fmt: skip
        return
    axes.plot([estimate["low"], estimate["high"]], [row, row], color=colour, linewidth=2.0)
    axes.plot(estimate["mean"], row, marker="o", color=colour, markersize=5)


def _draw_coverage(axes: Axes, coverage: Mapping[str, Any]) -> None:
    counts = np.array(coverage["transitions"], np.float64)
    image = axes.pcolormesh(
        coverage["speed_edges"], coverage["bend_edges"], np.where(counts > 0, counts, np.nan).T,
        norm=LogNorm(vmin=1.0, vmax=max(counts.max(), 10.0)), cmap="viridis",
    )  # fmt: skip
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title("recorded transitions", fontsize=9)
    axes.set(xlabel="speed / top speed", ylabel="bend (left > 0)")


def _draw_shares(
    axes: Axes, edges: list[float], policies: Mapping[str, Any], key: str, label: str
) -> None:
    centres = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    for name, result in list(policies.items())[:_MOST_LINES]:
        shares = 100.0 * np.array(result["outside_support_by_region"][key], np.float64)
        axes.plot(centres, shares, marker="o", markersize=3, linewidth=1.2, label=name)
    axes.set(xlabel=label, ylim=(-4.0, 104.0))
    axes.set_title("actions outside the support [%]", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
