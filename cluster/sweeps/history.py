"""The reports of the trials of a sweep, kept across interruptions, and the ranking of trials."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cluster.sweeps.config import Goal, SweepConfig
from cluster.sweeps.search_space import Sample
from rlcar.runs.metrics_file import read_metrics
from rlcar.system.durable import replace_text

Row = dict[str, Any]  # trial, settings, and the metrics of one evaluation


class Score(NamedTuple):
    """The best evaluation of a trial; its run keeps the policy of that evaluation."""

    value: float
    env_steps: int
    settings: Sample


class TrialResult(NamedTuple):
    """One trial, as shown in the results."""

    name: str
    status: str  # done, stopped (by the scheduler), diverged, failed or unfinished
    score: Score | None
    settings: Sample  # of the score, or the current ones without a score
    env_steps: int
    train_seconds: float
    failures: int  # of its processes; a retry may have followed
    reason: str  # of the last failure
    curve: list[Row]


class TrialState(NamedTuple):
    """The state of a trial in Ray Tune."""

    status: str
    failures: int = 0
    reason: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})  # the current ones


class History:
    """Appends to `<folder>/history.jsonl`; ignores a torn last line, left by a killed sweep."""

    def __init__(self, folder: Path):
        self._path = folder / "history.jsonl"
        kept = read_metrics(self._path) if self._path.exists() else []
        replace_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self.curves: dict[str, list[Row]] = {}
        for row in kept:
            self._append(row)

    def add(self, trial: str, settings: Sample, figures: Mapping[str, Any]) -> None:
        """Adds one report, first to the file and then to `curves`."""
        numbers = {
            name: value if not isinstance(value, float) or math.isfinite(value) else None
            for name, value in figures.items()
        }
        row = {"trial": trial, "settings": dict(settings), **numbers}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        self._append(row)

    def score(self, trial: str, metric: str, goal: Goal) -> Score | None:
        """Returns the best evaluation of a trial; None before its first one."""
        rows = [
            row
            for row in self.curves.get(trial, [])
            if not row.get("diverged") and row.get(metric) is not None
        ]
        if not rows:
            return None
        choose = min if goal == "min" else max
        best = choose(rows, key=lambda row: row[metric])
        return Score(float(best[metric]), int(best["env_steps"]), best["settings"])

    def _append(self, row: Row) -> None:
        # A trial that returned to a checkpoint discarded what it had reported after it.
        curve = self.curves.setdefault(row["trial"], [])
        while curve and curve[-1]["env_steps"] >= row["env_steps"] and not row.get("diverged"):
            curve.pop()
        curve.append(row)


def ranked(
    sweep: SweepConfig, history: History, states: Mapping[str, TrialState]
) -> list[TrialResult]:
    """Returns the results of all trials, the best first."""
    results = [_result(sweep, history, name, state) for name, state in states.items()]
    sign = 1.0 if sweep.direction == "min" else -1.0

    def rank(result: TrialResult) -> tuple[bool, float, str]:
        return result.score is None, sign * result.score.value if result.score else 0.0, result.name

    return sorted(results, key=rank)


def _result(sweep: SweepConfig, history: History, name: str, state: TrialState) -> TrialResult:
    curve = history.curves.get(name, [])
    last: Row = curve[-1] if curve else {}
    env_steps = int(last.get("env_steps", 0))
    every = sweep.base().training.evaluate_every_env_steps
    last_evaluation = sweep.budget.env_steps // every * every
    if state.status == "TERMINATED":
        status = "done" if env_steps >= last_evaluation else "stopped"
        status = "diverged" if last.get("diverged") else status
    else:
        status = "failed" if state.status == "ERROR" else "unfinished"
    score = history.score(name, sweep.metric, sweep.direction)
    return TrialResult(
        name=name,
        status=status,
        score=score,
        settings=score.settings if score else dict(state.settings),
        env_steps=env_steps,
        train_seconds=max((row.get("run/train_seconds") or 0.0 for row in curve), default=0.0),
        failures=state.failures,
        reason=str(last.get("reason") or state.reason),
        curve=[row for row in curve if not row.get("diverged")],
    )
