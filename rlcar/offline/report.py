"""Writes the report of a selection: selection.json, selection.png and report.md."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlcar.evaluation.laps import write_json
from rlcar.evaluation.pictures import save_figure
from rlcar.system import durable

_CHOSEN, _OTHER = "#2f8f4e", "#2563a8"


def write_report(out: Path, result: Mapping[str, Any]) -> None:
    """Writes the pictures first and `selection.json` last: it marks a complete selection."""
    _draw(out / "selection.png", result)
    durable.replace_text(out / "report.md", _markdown(out, result))
    write_json(out / "selection.json", result)


def _draw(path: Path, result: Mapping[str, Any]) -> None:
    """Draws the cost by which the candidates were compared, if it was measured."""
    candidates = result["candidates"]
    size = (7.0, 1.4 + 0.45 * len(candidates))
    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for row, (name, candidate) in enumerate(candidates.items()):
        colour = _CHOSEN if name == result["chosen"] else _OTHER
        if candidate["cost"] is None:
            axes.text(0.02, row, "not measured", transform=axes.get_yaxis_transform(),
                      va="center", fontsize=8, color=colour)  # fmt: skip
            continue
        low, high = candidate["cost_interval"]
        axes.plot([low, high], [row, row], color=colour, linewidth=2.0)
        axes.plot(candidate["cost"], row, marker="o", color=colour)
    axes.set(
        yticks=range(len(candidates)), yticklabels=list(candidates), xlabel=result["measured"],
        ylim=(len(candidates) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_title(f"chosen: {result['chosen']} (lower is better)", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _markdown(out: Path, result: Mapping[str, Any]) -> str:
    """Returns the report for people."""
    lines = [
        f"# Selection from {result['data']}",
        "",
        f"Kept: **{result['chosen']}**, because {result['reason']}. Compared by: "
        f"{result['measured']}.",
        "",
        f"Data set: {result['episodes']:,} episodes, {result['transitions']:,} transitions, "
        f"recorded in {result['world']}; SHA-256 `{result['data_sha256']}`.",
        "",
        "| Candidate | Cost (95 % interval) | Test laps | Lap [steps] | Verdict from data | "
        "Estimated return |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(name, candidate) for name, candidate in result["candidates"].items()),
        "",
    ]
    version = result["published"]
    if version is not None:
        lines += [f"Published as version {version} of {result['registry']}.", ""]
    names = ["selection.png", "ope.png"]
    run = Path(result["candidates"][result["chosen"]]["run"])
    names += [os.path.relpath(run / file, out) for file in ("learning_curve.png", "laps.png")]
    lines += [f"![{name}]({name})\n" for name in names if (out / name).exists()]
    return "\n".join(lines)


def _row(name: str, candidate: Mapping[str, Any]) -> str:
    cost, laps, estimate = candidate["cost"], candidate["laps"], candidate["estimate"]
    cells = [name, "-" if cost is None else "{:.4g} ({:.4g}–{:.4g})".format(
        cost, *candidate["cost_interval"])]  # fmt: skip
    if laps is None:
        cells += ["-", "-"]
    else:
        time = laps["lap_time_steps"]
        cells += [f"{100 * laps['lap_rate']:.1f} %", "-" if time is None else f"{time:.1f}"]
    cells.append(candidate["verdict"] or "-")
    cells.append(
        "-" if estimate is None else "{mean:.4g} ({low:.4g}–{high:.4g})".format(**estimate)
    )
    return "| " + " | ".join(cells) + " |"
