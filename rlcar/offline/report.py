"""Writes the report of a selection: selection.json, selection.png and report.md."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.pictures import save_figure
from rlcar.system import durable

_CHOSEN, _OTHER = "#2f8f4e", "#2563a8"


def write_report(out: Path, result: Mapping[str, Any]) -> None:
    """Writes the pictures first and `selection.json` last: it marks a complete selection."""
    with durable.explaining_write_errors(out):
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
            text = "not measured" if candidate["failed"] is None else "failed"
            axes.text(0.02, row, text, transform=axes.get_yaxis_transform(),
                      va="center", fontsize=8, color=colour)  # fmt: skip
            continue
        if candidate["cost_interval"] is not None:
            axes.plot(candidate["cost_interval"], [row, row], color=colour, linewidth=2.0)
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
        *_failures(result["candidates"]),
        *_about_estimates(result),
    ]
    version = result["published"]
    if version is not None:
        lines += [f"Published as version {version} of {result['registry']}.", ""]
    names = ["selection.png", "ope.png"]
    run = Path(result["candidates"][result["chosen"]]["run"])
    names += [os.path.relpath(run / file, out) for file in ("learning_curve.png", "laps.png")]
    lines += [f"![{name}]({name})\n" for name in names if (out / name).exists()]
    return "\n".join(lines)


def _failures(candidates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name} failed: {candidate['failed']}\n"
        for name, candidate in candidates.items()
        if candidate["failed"] is not None
    ]


def _about_estimates(result: Mapping[str, Any]) -> list[str]:
    """Says which episodes the estimates are from, if there are estimates."""
    estimated = [name for name, one in result["candidates"].items() if one["verdict"] is not None]
    if not estimated:
        return []
    compared = (
        f"The verdict compares with {estimated[0]}, and that of {estimated[0]} with the recorded "
        "behaviour."
        if len(estimated) > 1
        else "The verdict compares with the recorded behaviour."
    )
    if result["held_out_episodes"] is not None:
        held_out = f"The estimates are from {result['held_out_episodes']:,} held-out episodes."
        return [f"{compared} {held_out}", ""]
    return [
        f"{compared} Estimates from the episodes that a policy learned from are too high. Keep "
        "some apart with `rlcar data split`.",
        "",
    ]


def _cost(candidate: Mapping[str, Any]) -> str:
    cost, interval = candidate["cost"], candidate["cost_interval"]
    if candidate["failed"] is not None:
        return "failed"
    if cost is None:
        return "-"
    return f"{cost:.4g} (-)" if interval is None else "{:.4g} ({:.4g}–{:.4g})".format(
        cost, *interval)  # fmt: skip


def _row(name: str, candidate: Mapping[str, Any]) -> str:
    laps, estimate = candidate["laps"], candidate["estimate"]
    cells = [name, _cost(candidate)]
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
