"""Describes rollouts: as sentences for people, and as trees for JSON."""

from typing import Any

import msgspec

from serve.delivery.counts import RolloutCounts
from serve.delivery.events import (
    Aborted,
    Advanced,
    AliasMoved,
    AnyEvent,
    Entry,
    Measured,
    Measurement,
    Promoting,
    Retried,
    Started,
    Undecided,
    Undone,
)
from serve.delivery.specification import Step
from serve.delivery.state import RolloutState, apply


def summary(state: RolloutState) -> str:
    """Returns the state of a rollout in one line."""
    steps = len(state.specification.steps())
    words = f"rollout {state.rollout}: version {state.stable} to {state.candidate}, {state.phase}"
    if state.is_running:
        words += f", step {min(state.step + 1, steps)} of {steps}"
        if state.current is not None:
            words += f" ({step_text(state.current)})"
        words += f", weight {state.weight:g} %"
        if state.shadow_weight:
            words += f", shadow {state.shadow_weight:g} %"
    return f"{words}; {state.message}" if state.message else words


def step_text(step: Step) -> str:
    """Returns a step in a few words."""
    if step.set_weight is not None:
        return f"setWeight {step.set_weight:g} %"
    if step.pause is not None:
        duration_s = step.pause.duration
        return "pause until resumed" if duration_s is None else f"pause {duration_s:g} s"
    if step.shadow is not None:
        return f"shadow {step.shadow.weight:g} % for {step.shadow.duration:g} s"
    if step.winner is not None:
        return f"compare {step.winner.kpi}"
    assert step.analysis is not None
    return f"analysis of {', '.join(metric.name for metric in step.analysis.metrics)}"


def described(state: RolloutState, counts: RolloutCounts | None = None) -> dict[str, Any]:
    """Returns a rollout as a tree for JSON."""
    tree: dict[str, Any] = {
        "rollout": state.rollout,
        "stable": state.stable,
        "candidate": state.candidate,
        "phase": state.phase,
        "started_s": state.started_s,
        "step": state.step,
        "steps": len(state.specification.steps()),
        "step_text": "" if state.current is None else step_text(state.current),
        "step_began_s": state.step_began_s,
        "weight": state.weight,
        "shadow_weight": state.shadow_weight,
        "is_promoted": state.is_promoted,
        "message": state.message,
        "tallies": {
            name: {key: value for key, value in tally._asdict().items() if key != "last_s"}
            for name, tally in state.tallies.items()
        },
    }
    if counts is not None:
        tree["counts"] = {
            name: msgspec.to_builtins(getattr(counts, name))
            for name in ("stable", "candidate", "shadow")
        }
        # Most laps have both, and nothing tells which of them belong to the same lap.
        tree["outcomes"] = max(len(counts.rewards), len(counts.successes))
    return tree


def listed(entries: list[Entry]) -> list[dict[str, Any]]:
    """Returns the last state of each rollout, the newest first."""
    state: RolloutState | None = None
    last: dict[str, RolloutState] = {}
    for entry in entries:
        state = apply(state, entry)
        last[state.rollout] = state
    return [described(one) for one in reversed(last.values())]


def tree_of(entry: Entry) -> dict[str, Any]:
    """Returns an entry of the journal for JSON."""
    tree: dict[str, Any] = msgspec.to_builtins(entry)
    return tree


def sentence(event: AnyEvent) -> str:
    """Returns an event in one sentence."""
    if isinstance(event, Started):
        begins = f"rollout {event.rollout} of version {event.candidate} over {event.stable} begins"
        gates = "".join(f"; gate {one.gate} passed: {one.reason}" for one in event.gates)
        return f"{begins}{gates}"
    if isinstance(event, Retried):
        return f"the rollout begins again as {event.rollout}"
    if isinstance(event, Advanced):
        return f"step {event.step + 1} begins"
    if isinstance(event, Measured):
        return "; ".join(_measured(one) for one in event.measurements)
    if isinstance(event, Aborted):
        return f"{'rolled back' if event.is_rollback else 'aborted'}: {event.reason}"
    if isinstance(event, AliasMoved):
        return f"the alias points at version {event.version}"
    if isinstance(event, Promoting | Undecided | Undone):
        return f"{type(event).__name__.lower()}: {event.reason}"
    return type(event).__name__.lower()


def _measured(measurement: Measurement) -> str:
    if measurement.value is None:
        return f"{measurement.metric}: no data"
    return f"{measurement.metric}: {measurement.value:.4g} {measurement.result}"
