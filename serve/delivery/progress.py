"""Decides what happens next in a rollout: a pure function of its state, the time and the numbers.

No process leads the others: every server computes the same event from the same journal, and the
journal accepts the first one.
"""

import math
from collections.abc import Callable

from serve.delivery.events import (
    Aborted,
    Advanced,
    AnyEvent,
    Completed,
    Measured,
    Measurement,
    Promoting,
    Result,
    Undecided,
)
from serve.delivery.sequential import Evidence
from serve.delivery.specification import (
    MAX_MEASUREMENTS,
    Analysis,
    AnalysisMetric,
    Winner,
    parse_condition,
)
from serve.delivery.state import RolloutState, Tally

Measure = Callable[[AnalysisMetric], float | None]  # its value, or None without data
Compare = Callable[[str], Evidence]  # the evidence about a KPI


def due_event(
    state: RolloutState, now_s: float, measure: Measure, compare: Compare
) -> AnyEvent | None:
    """Returns the event that is due by itself, or None while the rollout waits."""
    step = state.current
    if _waits_for_person(state):
        return None
    if step is None:
        return Promoting("all steps are done") if state.specification.promotes else Completed()
    waited_s = now_s - state.step_began_s
    forward = Advanced(state.step + 1)
    if step.set_weight is not None:
        return forward
    if step.pause is not None:
        duration_s = step.pause.duration
        return forward if duration_s is not None and waited_s >= duration_s else None
    if step.shadow is not None:
        return forward if waited_s >= step.shadow.duration else None
    if step.winner is not None:
        return _winner(step.winner, compare(step.winner.kpi), state)
    assert step.analysis is not None
    return _analysis(state, step.analysis, waited_s, measure)


def _waits_for_person(state: RolloutState) -> bool:
    return not state.is_running or state.held_s is not None or state.phase == "Inconclusive"


def _analysis(
    state: RolloutState, analysis: Analysis, waited_s: float, measure: Measure
) -> AnyEvent | None:
    for metric in analysis.metrics:
        verdict = _verdict(metric, state.tallies.get(metric.name, Tally()))
        if verdict is not None:
            return verdict
    measured = []
    for metric in _due_metrics(state, analysis, waited_s):
        value = measure(metric)
        if value is not None and not math.isfinite(value):
            value = None  # the journal is JSON
        measured.append(Measurement(metric.name, value, judge(metric, value)))
    if measured:
        return Measured(measured)
    is_done = all(
        _counted(metric, state.tallies.get(metric.name, Tally())) >= metric.count
        for metric in analysis.metrics
    )
    return Advanced(state.step + 1) if is_done else None


def due_metrics(state: RolloutState, now_s: float) -> list[AnalysisMetric]:
    """Returns the metrics that are to be measured now; none outside an analysis."""
    step = state.current
    if _waits_for_person(state) or step is None or step.analysis is None:
        return []
    return _due_metrics(state, step.analysis, now_s - state.step_began_s)


def _due_metrics(state: RolloutState, analysis: Analysis, waited_s: float) -> list[AnalysisMetric]:
    due = []
    for metric in analysis.metrics:
        tally = state.tallies.get(metric.name, Tally())
        # After a time in which no server ran, one measurement is due and not all that were missed.
        due_s = (tally.last_s if tally.measured else metric.initial_delay) + metric.interval
        if _counted(metric, tally) < metric.count and waited_s >= due_s:
            due.append(metric)
    return due


def _counted(metric: AnalysisMetric, tally: Tally) -> int:
    """Returns how many measurements count: those with data.

    In a dry run all of them count, as it must not hold the rollout up.
    """
    return tally.measured if metric.dry_run else tally.measured - tally.errors


def judge(metric: AnalysisMetric, value: float | None) -> Result:
    """Returns what a measured value means; no or no finite value is an error."""
    if value is None or not math.isfinite(value):
        return "error"
    has_success = has_failed = False
    if metric.success_condition is not None:
        has_success = parse_condition(metric.success_condition).holds(value)
    if metric.failure_condition is not None:
        has_failed = parse_condition(metric.failure_condition).holds(value)
    if has_failed:
        return "failure"
    if has_success:
        return "success"
    if metric.success_condition is None:
        return "success"
    return "failure" if metric.failure_condition is None else "inconclusive"


def _verdict(metric: AnalysisMetric, tally: Tally) -> AnyEvent | None:
    """Returns the event that ends the analysis early, if a limit of a metric is exceeded."""
    if metric.dry_run:
        return None
    last = "no data" if tally.last is None else f"{tally.last:.4g}"
    if tally.failures > metric.failure_limit:
        limit = metric.failure_condition or f"not {metric.success_condition}"
        return Aborted(
            f"{metric.name}: {metric.quantity} {last} ({limit}) in {tally.failures} of "
            f"{tally.measured} measurements",
            is_rollback=True,
            numbers={} if tally.last is None else {metric.value or metric.name: tally.last},
        )
    if tally.consecutive_errors > metric.consecutive_error_limit:
        return Aborted(
            f"{metric.name}: {metric.quantity} had no data in {tally.consecutive_errors} "
            "measurements in a row"
        )
    if tally.inconclusive > metric.inconclusive_limit:
        return Undecided(
            f"{metric.name}: {metric.quantity} {last} is neither good nor bad in "
            f"{tally.inconclusive} of {tally.measured} measurements"
        )
    counted = _counted(metric, tally)
    if counted < metric.count and tally.measured >= MAX_MEASUREMENTS:
        return Undecided(
            f"{metric.name}: {metric.quantity} had data in {counted} of {tally.measured} "
            f"measurements, and {metric.count} with data are needed"
        )
    return None


def _winner(winner: Winner, evidence: Evidence, state: RolloutState) -> AnyEvent | None:
    numbers = {f"{winner.kpi}Difference": evidence.difference, "pairs": float(evidence.pairs)}
    said = f"{winner.kpi} {evidence.difference:+.4g} over {evidence.pairs} pairs of laps"
    if evidence.is_significant(winner.significance):
        if evidence.difference > 0.0:
            return Advanced(state.step + 1)
        return Aborted(f"version {state.stable} is better: {said}", numbers=numbers)
    if evidence.pairs >= winner.max_pairs:
        return Undecided(f"no version is better: {said}")
    if evidence.is_cut:
        return Undecided(f"no version is better, and the servers keep no more laps: {said}")
    return None
