"""The report of a curriculum: report.json, and a picture of all attempts over env steps."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rlcar.evaluation.pictures import save_figure
from rlcar.runs.metrics_file import read_metrics
from rlcar.system import durable
from rlcar.system.provenance import provenance
from rlcar.training.curriculum.machine import Entered, Evaluated, Rechecked, Trained
from rlcar.training.curriculum.record import Record, run_folder
from rlcar.training.curriculum.settings import Stage

REPORT, PICTURE = "report.json", "curriculum.png"
_BLUE, _GREEN, _RED, _MUTED = "#2563a8", "#2f8f4e", "#d1242f", "#6e7781"


class Attempt(NamedTuple):
    """One run of a curriculum, in the order in which they were trained."""

    run: tuple[int, int]  # its stage (index) and number
    folder: Path
    env_steps_before: int  # of all earlier attempts
    env_steps: int
    train_seconds: float
    confirmations: list[dict[str, Any]]
    passed: bool


def attempts_of(record: Record) -> list[Attempt]:
    """Returns the attempts that the journal knows; the present one with what it has done so far."""
    found: list[Attempt] = []
    total = 0
    begun = [entry.run for entry in record.entries if isinstance(entry.event, Entered)]
    for run in begun:
        trained = record.details_of_run(run, Trained) or {}
        confirmations = [
            {**entry.details, "passed": entry.event.passed}
            for entry in record.entries
            if isinstance(entry.event, Evaluated) and entry.run == run
        ]
        folder = run_folder(record.folder, run)
        env_steps = int(trained.get("env_steps", 0))
        seconds = float(trained.get("train_seconds", 0.0))
        passed = any(one["passed"] for one in confirmations)
        found.append(Attempt(run, folder, total, env_steps, seconds, confirmations, passed))
        total += env_steps
    return found


def write_report(record: Record) -> Path:
    """Writes report.json and the picture beside it, each complete or absent; returns the former."""
    attempts = attempts_of(record)
    stages = record.curriculum.stages
    tree = {
        "curriculum": record.curriculum.name,
        "phase": record.state.phase,
        "stage": stages[record.state.stage].name,
        "regressions": record.state.regressions,
        "env_steps": sum(attempt.env_steps for attempt in attempts),
        "train_seconds": round(sum(attempt.train_seconds for attempt in attempts), 1),
        "stages": [_stage_tree(stage, index, attempts) for index, stage in enumerate(stages)],
        "forgetting": [
            {"after": stages[entry.before.stage].name, "earlier": entry.details["earlier"]}
            for entry in record.entries
            if isinstance(entry.event, Rechecked)
        ],
        "provenance": provenance(record.curriculum.base.seed),
    }
    path = record.folder / REPORT
    with durable.explaining_write_errors(path):
        _draw(record, attempts)
        durable.replace_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")
    return path


def _stage_tree(stage: Stage, index: int, attempts: list[Attempt]) -> dict[str, Any]:
    mine = [attempt for attempt in attempts if attempt.run[0] == index]
    passed = [one for attempt in mine for one in attempt.confirmations if one["passed"]]
    return {
        "name": stage.name,
        "thresholds": {"success_rate": stage.success_rate, "mean_reward": stage.mean_reward},
        "passed": passed[-1] if passed else None,
        "attempts": [
            {
                "run": attempt.folder.name,
                "env_steps": attempt.env_steps,
                "train_seconds": attempt.train_seconds,
                "passed": attempt.passed,
                "confirmations": attempt.confirmations,
            }
            for attempt in mine
        ],
    }


def _draw(record: Record, attempts: list[Attempt]) -> None:
    """Draws what evaluations measured during all attempts, with thresholds and boundaries."""
    stages = record.curriculum.stages
    panels = []
    if any(stage.success_rate is not None for stage in stages):
        panels.append(("evaluation/success_rate", "success_rate", "success [%]", 100.0))
    if any(stage.mean_reward is not None for stage in stages) or not panels:
        panels.append(("evaluation/episode_reward", "mean_reward", "mean reward", 1.0))
    height = 1.2 + 2.6 * len(panels)
    figure = Figure(figsize=(9.0, height), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(f"Curriculum {record.curriculum.name}: {record.state.phase}", weight="bold")
    rows = {attempt.run: read_metrics(attempt.folder / "metrics.jsonl") for attempt in attempts}
    for panel, (metric, threshold, label, scale) in zip(axes, panels, strict=True):
        for attempt in attempts:
            _draw_attempt(panel, attempt, stages[attempt.run[0]], rows[attempt.run],
                          (metric, threshold, scale))  # fmt: skip
        panel.set(ylabel=label)
        panel.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlabel="env steps of all attempts")
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[0].annotate(
        "line: evaluations while training · dashes: threshold · mark: fresh episodes, lower bound "
        "for success (green passes)",
        (0.0, 1.02), xycoords="axes fraction", fontsize=7, color=_MUTED, va="bottom",
    )  # fmt: skip
    save_figure(figure, record.folder / PICTURE)


def _draw_attempt(
    panel: Axes,
    attempt: Attempt,
    stage: Stage,
    rows: list[dict[str, Any]],
    what: tuple[str, str, float],
) -> None:
    metric, threshold, scale = what
    start = attempt.env_steps_before
    measured = [(row["env_steps"], row[metric]) for row in rows if row.get(metric) is not None]
    end = start + max([attempt.env_steps, *(env_steps for env_steps, _ in measured)])
    panel.axvline(start, color=_MUTED, linewidth=0.8, alpha=0.6)
    panel.annotate(
        f" {attempt.run[0] + 1}.{attempt.run[1]}", (start, 0.0), (1, 2),
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7, color=_MUTED,
    )  # fmt: skip
    panel.plot(
        [start + env_steps for env_steps, _ in measured],
        [scale * value for _, value in measured],
        color=_BLUE,
        linewidth=1.4,
        marker=".",
        markersize=3,
    )
    goal = getattr(stage, threshold)
    if goal is not None:
        panel.plot([start, end], [scale * goal] * 2, color="#24292f", linewidth=1.0, linestyle="--")
    key = "success_low" if threshold == "success_rate" else "mean_reward"
    for one in attempt.confirmations:
        if one[key] is not None:
            colour = _GREEN if one["passed"] else _RED
            panel.plot(start + one["env_steps"], scale * one[key], marker="D", color=colour)
