"""The state of a rollout, as a pure function of the events in its journal."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from rlcar.errors import UserError
from serve.delivery.events import (
    Aborted,
    Advanced,
    AliasMoved,
    Completed,
    Entry,
    Measured,
    Measurement,
    Paused,
    Promoting,
    Resumed,
    Retried,
    Started,
    Undecided,
    Undone,
)
from serve.delivery.specification import RolloutSpecification, Step, parse_specification

Phase = Literal["Progressing", "Paused", "Healthy", "Degraded", "Inconclusive"]
ENDED: frozenset[Phase] = frozenset({"Healthy", "Degraded"})


class RolloutError(UserError):
    """A command that the state of the rollout does not allow."""


class Tally(NamedTuple):
    """The measurements of one metric in the present analysis."""

    measured: int = 0
    failures: int = 0
    inconclusive: int = 0
    consecutive_errors: int = 0
    last: float | None = None
    last_s: float = 0.0  # time of the last measurement, since the step began
    errors: int = 0  # measurements without data

    def add(self, measurement: Measurement, time_s: float) -> "Tally":
        """Counts one more measurement."""
        result = measurement.result
        return Tally(
            self.measured + 1,
            self.failures + (result == "failure"),
            self.inconclusive + (result == "inconclusive"),
            self.consecutive_errors + 1 if result == "error" else 0,
            self.last if measurement.value is None else measurement.value,
            time_s,
            self.errors + (result == "error"),
        )


class RolloutState(NamedTuple):
    """Everything about the newest rollout of an alias."""

    rollout: str
    specification: RolloutSpecification
    stable: int
    candidate: int
    started_s: float
    phase: Phase = "Progressing"
    step: int = 0
    step_began_s: float = 0.0  # shifted by the time for which a person held the rollout
    weight: float = 0.0
    shadow_weight: float = 0.0
    message: str = ""
    tallies: Mapping[str, Tally] = {}
    held_s: float | None = None  # Unix time of the pause; None if not paused
    pending_alias: int | None = None  # version to which the alias has yet to move
    is_promoted: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.phase in ENDED and self.pending_alias is None

    @property
    def is_running(self) -> bool:
        """Whether the steps go on, now or after a person's decision."""
        return self.phase not in ENDED and self.pending_alias is None

    @property
    def waits_for_person(self) -> bool:
        """Whether the steps go on only after a person's decision."""
        if self.held_s is not None or self.phase == "Inconclusive":
            return True
        pause = None if self.current is None else self.current.pause
        return pause is not None and pause.duration is None

    @property
    def current(self) -> Step | None:
        """The present step; None after the last one."""
        steps = self.specification.steps()
        return steps[self.step] if self.step < len(steps) else None


def fold(entries: Iterable[Entry], state: RolloutState | None = None) -> RolloutState | None:
    """Returns the state after all entries, which follow `state`; None without a rollout."""
    for entry in entries:
        state = apply(state, entry)
    return state


def rolled_back_versions(entries: list[Entry]) -> dict[int, str]:
    """Returns the versions that a rollout has marked as bad, with the reason.

    A later promotion removes the mark.
    """
    marked: dict[int, str] = {}
    state: RolloutState | None = None
    for entry in entries:
        state = apply(state, entry)
        event = entry.event
        if isinstance(event, Undone) or (isinstance(event, Aborted) and event.is_rollback):
            marked[state.candidate] = event.reason
        if isinstance(event, AliasMoved) and event.version == state.candidate:
            marked.pop(event.version, None)
    return marked


def refuse_marked(entries: list[Entry], candidate: int) -> None:
    """Raises RolloutError if a version is marked as bad."""
    reason = rolled_back_versions(entries).get(candidate)
    if reason is not None:
        raise RolloutError(
            f"version {candidate} was rolled back before ({reason}): add --again to try it once "
            "more"
        )


def apply(state: RolloutState | None, entry: Entry) -> RolloutState:
    """Returns the state after an entry; raises RolloutError if the state does not allow it."""
    event, now_s = entry.event, entry.time_s
    if isinstance(event, Started):
        return _start(state, event, now_s)
    if state is None:
        raise RolloutError("there has been no rollout yet: begin one with rlcar rollout start")
    if isinstance(event, Retried):
        return _retry(state, event, now_s)
    if isinstance(event, AliasMoved):
        return _alias_moved(state, event)
    if isinstance(event, Undone):
        return _undo(state, event)
    if isinstance(event, Aborted) and state.pending_alias is not None:
        return _drop_move(state, event)
    if not state.is_running:
        raise RolloutError(
            f"rollout {state.rollout} of version {state.candidate} has ended ({state.phase}): "
            f"{state.message}"
        )
    if isinstance(event, Aborted):
        return state._replace(
            phase="Degraded", weight=0.0, shadow_weight=0.0, message=event.reason, held_s=None
        )
    if isinstance(event, Promoting):
        if not state.specification.promotes:
            raise RolloutError("a shadow rollout is not promoted: start a canary or a blueGreen")
        return state._replace(
            weight=100.0,
            shadow_weight=0.0,
            message=event.reason,
            held_s=None,
            pending_alias=state.candidate,
        )
    return _progress(state, event, now_s)


def extend(state: RolloutState | None, entry: Entry) -> RolloutState:
    """Returns the state after an entry that is about to be written.

    Raises RolloutError as `apply` does, and also for entries that were allowed in earlier versions:
    `apply` still reads these.
    """
    after, event = apply(state, entry), entry.event
    if state is None:
        return after
    if isinstance(event, Started) and not state.is_over:
        raise RolloutError(
            f"the alias has yet to move to version {state.pending_alias} for rollout "
            f"{state.rollout}: wait until a server has moved it, or keep it where it is (rlcar "
            "rollout abort)"
        )
    if isinstance(event, Paused) and state.waits_for_person:
        said = "paused" if state.phase == "Paused" else f"{state.phase} and waits for a person"
        raise RolloutError(f"rollout {state.rollout} is {said} already")
    return after


def _progress(state: RolloutState, event: object, now_s: float) -> RolloutState:
    if isinstance(event, Advanced):
        if event.step != state.step + 1:
            raise RolloutError(f"step {event.step} does not follow step {state.step}")
        return _begin_step(state, event.step, now_s)
    if isinstance(event, Measured):
        tallies = dict(state.tallies)
        for one in event.measurements:
            tallies[one.metric] = tallies.get(one.metric, Tally()).add(
                one, now_s - state.step_began_s
            )
        return state._replace(tallies=tallies)
    if isinstance(event, Paused):
        if state.phase != "Progressing" and state.held_s is not None:
            raise RolloutError(f"rollout {state.rollout} is paused already")
        return state._replace(phase="Paused", held_s=now_s, message="paused by a person")
    if isinstance(event, Resumed):
        return _resume(state, now_s)
    if isinstance(event, Undecided):
        return state._replace(phase="Inconclusive", message=event.reason)
    if isinstance(event, Completed):
        return state._replace(
            phase="Healthy", weight=0.0, shadow_weight=0.0, message="all steps are done"
        )
    raise RolloutError(f"unknown event {type(event).__name__}")


def _start(state: RolloutState | None, event: Started, now_s: float) -> RolloutState:
    if state is not None and state.phase not in ENDED:
        raise RolloutError(
            f"rollout {state.rollout} of version {state.candidate} is still {state.phase}: wait "
            "for its end, or abort it (rlcar rollout abort)"
        )
    specification = parse_specification(event.specification)
    fresh = RolloutState(event.rollout, specification, event.stable, event.candidate, now_s)
    return _begin_step(fresh, 0, now_s)


def _retry(state: RolloutState, event: Retried, now_s: float) -> RolloutState:
    if state.phase != "Degraded" or not state.is_over or state.is_promoted:
        raise RolloutError(
            f"rollout {state.rollout} is {state.phase}: only an aborted rollout can be retried"
        )
    fresh = RolloutState(event.rollout, state.specification, state.stable, state.candidate, now_s)
    return _begin_step(fresh, 0, now_s)


def _undo(state: RolloutState, event: Undone) -> RolloutState:
    if state.phase != "Healthy" or not state.is_promoted:
        raise RolloutError(
            f"rollout {state.rollout} is {state.phase}: only a promoted rollout can be undone"
        )
    return state._replace(phase="Degraded", message=event.reason, pending_alias=state.stable)


def _drop_move(state: RolloutState, event: Aborted) -> RolloutState:
    """The alias stays where it is, so a promotion is aborted, and an undo leaves it promoted."""
    dropped = state._replace(pending_alias=None, message=event.reason)
    if state.is_promoted:
        return dropped._replace(phase="Healthy")
    return dropped._replace(phase="Degraded", weight=0.0)


def _alias_moved(state: RolloutState, event: AliasMoved) -> RolloutState:
    if state.pending_alias != event.version:
        raise RolloutError(f"no move of the alias to version {event.version} is due")
    if event.version == state.candidate:
        message = f"version {state.candidate} is promoted: {state.message}"
        return state._replace(
            phase="Healthy", pending_alias=None, is_promoted=True, message=message
        )
    return state._replace(pending_alias=None, weight=0.0)


def _resume(state: RolloutState, now_s: float) -> RolloutState:
    if state.phase not in ("Paused", "Inconclusive"):
        raise RolloutError(f"rollout {state.rollout} is {state.phase}, not paused")
    if state.phase == "Paused" and state.held_s is not None:
        began_s = state.step_began_s + (now_s - state.held_s)
        held = state._replace(held_s=None, step_began_s=began_s, message="resumed")
        return held._replace(phase=_phase_in(held.current))
    # A pause step, or an analysis without an answer, which a person now judges: the next step.
    return _begin_step(state, state.step + 1, now_s)


def _begin_step(state: RolloutState, step: int, now_s: float) -> RolloutState:
    begun = state._replace(step=step, step_began_s=now_s, tallies={}, message="")
    current = begun.current
    if current is not None and current.set_weight is not None:
        begun = begun._replace(weight=current.set_weight, shadow_weight=0.0)
    if current is not None and current.shadow is not None:
        begun = begun._replace(shadow_weight=current.shadow.weight)
    return begun._replace(phase=_phase_in(current))


def _phase_in(step: Step | None) -> Phase:
    return "Paused" if step is not None and step.pause is not None else "Progressing"
