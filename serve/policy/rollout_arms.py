"""Who drives which session during a rollout, and what this process counts about both versions."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np

from serve.delivery.action_differences import add_differences, change_of
from serve.delivery.assignment import is_canary, is_shadowed
from serve.delivery.counts import TESTED_FAULTS, Fault, RolloutCounts
from serve.delivery.lateness import Lateness
from serve.delivery.sequential import Cusum, Outcome
from serve.delivery.specification import AutomaticRollback
from serve.policy.alias_follower import ServedModel
from serve.policy.sessions import Session, ShadowMemory
from serve.recording.recorder import Arm

# Latencies are compared within this time, so that both versions meet the same load.
_LATENCY_WINDOW_S, _LATENCIES, _FEWEST_LATENCIES = 15.0, 100, 60
_SLOW_FOR_S = 4.0  # a burst of load that meets one version's cars ends sooner
_TRY_AGAIN_S = 0.5  # between two attempts of a session to go to the candidate
# In one rollout, so that one session has at most 1,000 of the 2,500 laps of a version that a server
# keeps. Where the others report few, it may still decide.
_LAPS_OF_A_SESSION = 1000
_LOOKS_AFTER_TOLD = 2  # the first may have begun before the session came
_MAX_SHADOW_COST_S = 0.0005  # sessions whose candidate takes longer are not shadowed
_NAMES: dict[Fault, str] = {
    "errors": "errors",
    "non_finite": "answers that are not finite",
    "late": "late answers",
    "fallbacks": "fallbacks",
}


class ActiveRollout(NamedTuple):
    """The rollout that this process takes part in."""

    rollout: str
    stable: int
    candidate: ServedModel
    weight: float
    shadow_weight: float
    rollback: AutomaticRollback
    next_weight: float = 0.0  # of the next step that sets one: other servers may be there already


class Alarm(NamedTuple):
    """Why the candidate must not drive any longer."""

    rollout: str
    reason: str
    numbers: dict[str, float]


class RolloutArms:
    """The part of a rollout that every request passes; it never waits for the registry."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self.active: ActiveRollout | None = None
        self.counts = RolloutCounts()
        self.alarm: Alarm | None = None
        self.looks = 0  # how often the journal was read and shown here
        self.on_alarm: Callable[[], None] = lambda: None
        self._faults: dict[Fault, Cusum] = {}
        # (time, latency) of the last answers, by whether they are the candidate's
        self._latencies: dict[bool, deque[tuple[float, float]]] = {}
        self._lateness = Lateness(AutomaticRollback())
        self._slow_since_s: float | None = None

    def show(self, active: ActiveRollout | None) -> None:
        """Takes part in a rollout, or goes on with it at another weight; None ends it."""
        before, self.active = self.active, active
        self.looks += 1
        if active is None or (before is not None and before.rollout == active.rollout):
            return
        self.counts, self.alarm, self._slow_since_s = RolloutCounts(), None, None
        self._faults = {name: make_cusum(active.rollback) for name in TESTED_FAULTS}
        self._lateness = Lateness(active.rollback)
        self._latencies = {arm: deque(maxlen=_LATENCIES) for arm in (False, True)}

    def model_for(self, session: str, stable: ServedModel) -> ServedModel:
        """Returns the version that drives a session; after an alarm it is the stable one."""
        active = self.active
        if active is None or self.alarm is not None:
            return stable
        is_candidate = is_canary(active.rollout, session, active.weight)
        return active.candidate if is_candidate else stable

    def told_model(self, told: int | None, name: str, stable: ServedModel) -> ServedModel | None:
        """Returns the version that the client of a session has last heard of, if it may drive.

        Another server may have driven the session, which has read a later entry of the journal than
        this one. If a session that is new here goes on with that version, it does not change there
        and back. The candidate may drive only what the present weight or the next one gives to it,
        so that no client chooses it.
        """
        if told == stable.number:
            return stable
        active = self.active
        if active is None or self.alarm is not None or told != active.candidate.number:
            return None
        weight = max(active.weight, active.next_weight)
        return active.candidate if is_canary(active.rollout, name, weight) else None

    def is_told(self, session: Session) -> bool:
        """Whether a session keeps the version with which it came from another server.

        It does until the journal has been read, from beginning to end, after the session came.
        """
        told = session.told_at_look
        return (
            told is not None
            and self.looks < told + _LOOKS_AFTER_TOLD
            and self.active is not None
            and self.alarm is None
        )

    def arm_of(self, version: int) -> Arm | None:
        """Returns which arm of the rollout a version is; None without a rollout of it."""
        active = self.active
        if active is None or version not in (active.stable, active.candidate.number):
            return None
        return Arm(active.rollout, version == active.candidate.number)

    def add(
        self, model: ServedModel, fault: Fault | None, is_fallback: bool, latency_s: float | None
    ) -> None:
        """Counts one answer to a session; raises the alarm if the candidate is faulty.

        `latency_s` is None for a session of several cars, which would not compare with one car.
        """
        active = self.active
        if active is None:
            return
        is_candidate = model is active.candidate
        arm = self.counts.candidate if is_candidate else self.counts.stable
        arm.answers += 1
        if latency_s is not None:
            arm.timed += 1
            arm.latency_s += latency_s
            self._latencies[is_candidate].append((self._clock(), latency_s))
        if fault is not None:
            setattr(arm, fault, getattr(arm, fault) + 1)
        arm.fallbacks += is_fallback
        self._lateness.add(self._clock(), is_candidate, fault == "late")
        if not is_candidate:
            return
        if fault == "non_finite":
            self.raise_alarm("the candidate gave an answer that is not finite", {})
        for name, cusum in self._faults.items():
            if cusum.add(int(name == fault), 1):
                faults = getattr(arm, name)
                self.raise_alarm(*fault_reason(name, faults, arm.answers, active.rollback))

    def raise_alarm(self, reason: str, numbers: dict[str, float]) -> None:
        """Gives all sessions of this process to the stable version, and wakes the follower."""
        if self.active is None or self.alarm is not None or not self.active.rollback.enabled:
            return
        self.alarm = Alarm(self.active.rollout, reason, numbers)
        self.on_alarm()

    def check_latency(self) -> None:
        """Raises the alarm if the candidate's answers take much longer for some seconds."""
        active = self.active
        if active is None or self.alarm is not None:
            return
        late = self._lateness.at(self._clock())
        if late.is_alarm:
            reason, numbers = fault_reason("late", late.late, late.answers, active.rollback)
            stable = f"{late.stable_late} of {late.stable_answers} by version {active.stable}"
            self.raise_alarm(f"{reason}; {stable}", numbers)
            return
        since_s = self._clock() - _LATENCY_WINDOW_S
        recent = {
            arm: [latency_s for time_s, latency_s in latencies if time_s >= since_s]
            for arm, latencies in self._latencies.items()
        }
        if min(map(len, recent.values())) < _FEWEST_LATENCIES:
            self._slow_since_s = None
            return
        stable_s, candidate_s = median(recent[False]), median(recent[True])
        if candidate_s <= active.rollback.latency_ratio * stable_s:
            self._slow_since_s = None
            return
        if self._slow_since_s is None:
            self._slow_since_s = self._clock()
        if self._clock() - self._slow_since_s >= _SLOW_FOR_S:
            ratio = candidate_s / stable_s
            self.raise_alarm(
                f"latency {1e3 * candidate_s:.3g} ms is {ratio:.3g} times the "
                f"{1e3 * stable_s:.3g} ms of version {active.stable} (limit "
                f"{active.rollback.latency_ratio:g})",
                {"latencyRatio": ratio},
            )

    def admit_lap(self, session: Session) -> bool:
        """Counts a lap of a session; returns whether it may have another one in this rollout."""
        rollout = "" if self.active is None else self.active.rollout
        laps = session.laps[1] + 1 if session.laps[0] == rollout else 1
        session.laps = (rollout, laps)
        return laps <= _LAPS_OF_A_SESSION

    def tries_again(self, session: Session, now_s: float) -> bool:
        """Whether a session goes to the candidate again, which failed on its observations before.

        With few sessions, one failure of each would not suffice for the test of faults.
        """
        active = self.active
        return (
            active is not None
            and active.rollback.enabled
            and session.failed_on is active.candidate
            and now_s - session.failed_s >= _TRY_AGAIN_S
        )

    def add_lap(self, session: Session, reward: float | None, success: bool | None) -> str | None:
        """Counts a lap that the session's version drove alone; returns why it is not counted."""
        active, number = self.active, session.model.number
        if active is None:
            return "no rollout is under way"
        if number not in (active.stable, active.candidate.number):
            return f"version {number} takes no part in the rollout"
        if not self.admit_lap(session):
            return f"the session has reported {_LAPS_OF_A_SESSION} laps in this rollout"
        self.add_outcome(number, reward, success)
        return None

    def add_outcome(self, version: int | None, reward: float | None, success: bool | None) -> None:
        """Counts the KPIs of a lap that a version drove; laps of people must not come here."""
        active = self.active
        if active is None or version not in (active.stable, active.candidate.number):
            return
        is_candidate = version == active.candidate.number
        if reward is not None:
            self.counts.add_outcome("reward", Outcome(time.time(), is_candidate, reward))
        if success is not None:
            outcome = Outcome(time.time(), is_candidate, float(success))
            self.counts.add_outcome("success", outcome)

    def is_shadowed(self, name: str, session: Session) -> bool:
        """Whether the candidate acts unseen for a session that the stable version drives."""
        active = self.active
        return (
            active is not None
            and active.shadow_weight > 0.0
            and self.alarm is None
            and session.model is not active.candidate
            and active.candidate.cost_of(session.cars) < _MAX_SHADOW_COST_S
            and is_shadowed(active.rollout, name, active.shadow_weight)
        )

    def shadow(
        self, session: Session, observation: np.ndarray, is_first: np.ndarray, sent: np.ndarray
    ) -> None:
        """Lets the candidate act on an observation too, and compares its action with `sent`."""
        active = self.active
        if active is None:
            return
        model, memory, counts = active.candidate, session.shadow, self.counts.shadow
        if memory is None or memory.rollout != active.rollout:
            state = model.policy.initial_state(session.cars)
            memory = session.shadow = ShadowMemory(active.rollout, state)
            is_first = np.ones(session.cars, bool)
        began_s = time.perf_counter()
        try:
            action, memory.state = model.policy.act(memory.state, observation, is_first)
        except FloatingPointError:
            counts.non_finite += 1
            self.raise_alarm("the candidate's shadow gave an answer that is not finite", {})
            return
        except Exception as error:
            counts.errors += 1
            self.raise_alarm(f"the candidate's shadow failed: {type(error).__name__}", {})
            return
        counts.latency_s += time.perf_counter() - began_s
        add_differences(counts, action, sent)
        if memory.actions is not None:
            last_action, last_sent = memory.actions
            counts.jerk_candidate += change_of(action, last_action, is_first)
            counts.jerk_stable += change_of(sent, last_sent, is_first)
        memory.actions = (action, sent)


def make_cusum(rollback: AutomaticRollback) -> Cusum:
    """Returns the test of one kind of fault."""
    return Cusum(rollback.usual_share, rollback.faulty_share, rollback.false_alarm)


def fault_reason(
    name: Fault, faults: int, answers: int, rollback: AutomaticRollback
) -> tuple[str, dict[str, float]]:
    """Returns why a share of faults is too large, and the numbers behind it."""
    share = faults / max(answers, 1)
    limit = f"{100 * rollback.faulty_share:g} %"
    counted = f"{faults} of {answers} answers"
    if share > rollback.faulty_share:
        reason = f"{_NAMES[name]} {100 * share:.3g} % > {limit} ({counted})"
    else:  # most of the answers came before the fault began
        reason = f"{_NAMES[name]} lately > {limit} ({counted} in all)"
    return reason, {f"{name}Share": share, "answers": float(answers)}
