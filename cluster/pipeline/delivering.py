"""The last stage: a rollout of the candidate by the running servers, followed to its end."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.pipeline.context import Context, Done
from rlcar.errors import RegistryUnavailableError, UserError
from serve.delivery.counts import RolloutCounts
from serve.delivery.events import Aborted, Entry, Started
from serve.delivery.operator import Operator
from serve.delivery.report import summary
from serve.delivery.sequential import Outcome
from serve.delivery.state import RolloutState, apply
from serve.policy.policy import try_model

_POLL_S = 0.5
_MOST_LAPS = 2500  # of each KPI, which the report draws


def roll_out(context: Context, given: Mapping[str, Any]) -> Done:
    """Begins the rollout, unless an earlier try did, and waits until it has ended.

    Raises RolloutError if another rollout is running. Ctrl-C ends the waiting alone.
    """
    operator = operator_of(context)
    candidate, stable = int(given["candidate"]), int(given["stable"])
    rollout = _id(context)
    if not any(_is_start(entry, rollout) for entry in operator.read().entries):
        current = context.registry.resolve(context.settings.alias)
        if current != stable:
            sentence = (
                f"{context.settings.alias} moved from version {stable} to {current} meanwhile: the "
                "next run compares with that one"
            )
            return Done({}, sentence, "overtaken")
        operator.start(candidate, context.settings.rollout, try_model, rollout=rollout)
    state = _wait(context, operator, rollout)
    outputs = {"rollout": rollout, "phase": state.phase, **_figures(operator, state)}
    if state.is_promoted and state.phase == "Healthy":
        return Done(outputs, state.message, "promoted")
    if state.phase == "Healthy":
        return Done(outputs, f"version {candidate}: {state.message}", "shadowed")
    return Done(outputs, f"version {candidate} is rolled back: {state.message}", "rolled back")


def refuse_running_rollout(context: Context) -> None:
    """Raises UserError if the rollout that the run began has not ended yet."""
    state = operator_of(context).read().state
    if state is not None and state.rollout == _id(context) and not state.is_over:
        raise UserError(f"rollout {state.rollout} goes on: abort it first with rlcar rollout abort")


def operator_of(context: Context) -> Operator:
    """Returns an operator that writes in the pipeline's name."""
    actor = f"pipeline {context.name}"
    return Operator(context.registry, context.settings.alias, actor)


def _id(context: Context) -> str:
    """Returns the rollout's name, by which a repeated stage finds the rollout that it began."""
    text = f"{context.name} {context.run.began_s}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _is_start(entry: Entry, rollout: str) -> bool:
    return isinstance(entry.event, Started) and entry.event.rollout == rollout


def _wait(context: Context, operator: Operator, rollout: str) -> RolloutState:
    """Returns the state in which a rollout has ended; aborts it after the timeout."""
    said = ""
    while True:
        with contextlib.suppress(RegistryUnavailableError):  # it may answer again
            state = _last_state(operator.read().entries, rollout)
            text = summary(state)
            if text != said:
                context.say(text)
                said = text
            if state.is_over:
                return state
            timeout_s = context.settings.rollout_timeout
            if state.is_running and time.time() - state.started_s > timeout_s:
                abort_own(operator, rollout, f"it has not ended within {timeout_s:g} s")
        time.sleep(_POLL_S)


def abort_own(operator: Operator, rollout: str, reason: str) -> None:
    """Aborts a rollout, unless it has ended; a newer one goes on.

    Does nothing if others write at the same time: the caller looks again soon.
    """
    snapshot = operator.read()
    state = snapshot.state
    if state is None or state.rollout != rollout or not state.is_running:
        return
    aborted = operator.write(snapshot, Aborted(reason))
    if aborted is not None:
        operator.repair(aborted)


def _states(entries: list[Entry], rollout: str) -> Iterator[tuple[float, RolloutState]]:
    """Yields the time of each entry of a rollout, and the state after it."""
    state: RolloutState | None = None
    for entry in entries:
        state = apply(state, entry)
        if state.rollout == rollout:
            yield entry.time_s, state


def _last_state(entries: list[Entry], rollout: str) -> RolloutState:
    *_, (_, state) = _states(entries, rollout)
    return state


def _figures(operator: Operator, state: RolloutState) -> dict[str, Any]:
    """Returns the weights over time, and the reported laps of both versions."""
    weights = [
        [time_s, one.weight, one.shadow_weight]
        for time_s, one in _states(operator.read().entries, state.rollout)
    ]
    counts = operator.counts(state)
    return {
        "weights": weights,
        "answers": {"stable": counts.stable.answers, "candidate": counts.candidate.answers},
        "shadow_pairs": counts.shadow.pairs,
        "evidence": {kpi: _evidence(counts, kpi) for kpi in ("reward", "success")},
        "rewards": _laps(counts.rewards),
        "successes": _laps(counts.successes),
    }


def _evidence(counts: RolloutCounts, kpi: str) -> dict[str, float]:
    evidence = counts.evidence(kpi)
    return {"difference": evidence.difference, "pairs": evidence.pairs}


def _laps(outcomes: list[Outcome]) -> list[list[Any]]:
    """Returns time, whether it is the candidate's, and value of the newest laps."""
    newest = sorted(outcomes)[-_MOST_LAPS:]
    return [[one.time_s, one.is_canary, one.value] for one in newest]
