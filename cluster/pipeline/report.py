"""The report of a run: report.json, and a picture of its stages, weights and KPIs over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.pipeline.journal import Entry, Run
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.pictures import save_figure
from rlcar.system import durable

_STABLE, _CANDIDATE, _MUTED, _BAD = "#2563a8", "#2f8f4e", "#6e7781", "#d1242f"
_MEAN_OF_LAPS = 20
_KPIS = {"rewards": "reward", "successes": "success"}


def report_path(run: Run) -> Path:
    """Returns where the report of a run is once it has ended; it is written last."""
    return run.folder / "report.json"


def write_report(run: Run, name: str) -> Path:
    """Writes the picture of a run that has ended, then `report.json`; returns its path."""
    entries, ending, path = run.entries(), run.ending, report_path(run)
    assert ending is not None
    values = run.values()
    tree = {
        "pipeline": name,
        "run": run.number,
        "began_s": run.began_s,
        "outcome": ending.outcome,
        "reason": ending.sentence,
        "stages": [entry._asdict() for entry in entries],
    }
    with durable.explaining_write_errors(run.folder):
        title = f"{name}, run {run.number}: {ending.outcome}"
        draw(run.folder / "report.png", entries, values, title)
        write_json(path, tree)
    return path


def draw(path: Path, entries: list[Entry], values: Mapping[str, Any], title: str) -> None:
    """Draws the stages and, if there was a rollout, its weight and the laps of both versions."""
    panels = [name for name in ("rewards", "successes") if values.get(name)]
    has_weight = bool(values.get("weights"))
    rows = 1 + has_weight + len(panels)
    heights = [0.5 + 0.22 * len(entries), *([1.2] * has_weight), *([1.8] * len(panels))]
    figure = Figure(figsize=(8.0, 1.0 + sum(heights)), dpi=130, layout="constrained")
    all_axes = figure.subplots(rows, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_stages(all_axes[0], entries)
    all_axes[0].set_title(title, fontsize=9, loc="left")
    began_s = values["weights"][0][0] if has_weight else 0.0
    if has_weight:
        _draw_weights(all_axes[1], values["weights"], entries[-1].ended_s, began_s)
    for axes, name in zip(all_axes[1 + has_weight :], panels, strict=True):
        _draw_laps(axes, values, name, began_s)
    if rows > 1:
        all_axes[-1].set_xlabel("seconds since the rollout began", fontsize=8)
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    save_figure(figure, path)


def _draw_stages(axes: Axes, entries: list[Entry]) -> None:
    began_s = entries[0].began_s
    for row, entry in enumerate(entries):
        is_bad = entry.outcome not in (None, "promoted", "shadowed")
        colour = _BAD if is_bad else _CANDIDATE if entry.outcome else _STABLE
        width_s = entry.ended_s - entry.began_s
        axes.barh(row, width_s, left=entry.began_s - began_s, color=colour, height=0.6)
        axes.text(entry.ended_s - began_s, row, f" {width_s:.1f} s", va="center", fontsize=7)
    axes.set(yticks=range(len(entries)), yticklabels=[entry.stage for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel("seconds since the run began", fontsize=8)


def _draw_weights(axes: Axes, weights: list[list[float]], end_s: float, began_s: float) -> None:
    times = [one[0] - began_s for one in weights] + [end_s - began_s]
    for index, colour, label in ((1, _CANDIDATE, "drives"), (2, _MUTED, "acts unseen")):
        shares = [one[index] for one in weights]
        axes.step(times, [*shares, shares[-1]], where="post", color=colour, label=label)
    axes.set_ylabel("candidate [%]", fontsize=8)
    axes.set_ylim(-5, 105)
    axes.legend(fontsize=7, frameon=False)


def _draw_laps(axes: Axes, values: Mapping[str, Any], name: str, began_s: float) -> None:
    """Draws each reported lap, and the running mean of the laps of each version."""
    for is_candidate, colour in ((False, _STABLE), (True, _CANDIDATE)):
        laps = [one for one in values[name] if bool(one[1]) == is_candidate]
        if not laps:
            continue
        times = np.array([one[0] for one in laps]) - began_s
        numbers = np.array([one[2] for one in laps], np.float64)
        axes.plot(times, numbers, ".", color=colour, markersize=2.5, alpha=0.4)
        window = min(_MEAN_OF_LAPS, len(numbers))
        means = np.convolve(numbers, np.ones(window) / window, mode="valid")
        version = values["candidate"] if is_candidate else values["stable"]
        axes.plot(times[window - 1 :], means, color=colour, label=f"version {version}")
    axes.set_ylabel(f"{_KPIS[name]} of a lap", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
