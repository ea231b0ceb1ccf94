"""What servers count about the two versions of a rollout, and the values of metrics from it."""

from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

from serve.api.schema import LARGEST_REWARD
from serve.delivery.sequential import Evidence, Outcome, paired_differences, paired_evidence
from serve.delivery.specification import Kpi

Fault = Literal["errors", "non_finite", "late", "fallbacks"]
# Those of the version alone. A late answer may be the machine's fault, so `Lateness` compares it
# with the stable version; every fallback is one of the other three.
TESTED_FAULTS: tuple[Fault, ...] = ("errors", "non_finite")
MAX_OUTCOMES = 2500  # of one server, version and KPI; the newest ones are kept
_SHARES: dict[str, Fault] = {
    "errorShare": "errors",
    "nonFiniteShare": "non_finite",
    "lateShare": "late",
    "fallbackShare": "fallbacks",
}


class ArmCounts(msgspec.Struct):
    """Answers to sessions by one version."""

    answers: int = 0
    errors: int = 0  # exceptions of the policy
    non_finite: int = 0
    late: int = 0
    fallbacks: int = 0
    timed: int = 0  # answers to sessions of one car, whose latencies can be compared
    latency_s: float = 0.0  # sum over those

    def add(self, other: "ArmCounts") -> None:
        """Adds the counts of another server."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class ShadowCounts(msgspec.Struct):
    """Pairs of actions for the same observation: the one that was sent, and the candidate's.

    `serve.delivery.action_differences` defines what is counted, from all numbers of an action.
    """

    pairs: int = 0
    differing: int = 0  # a number differs by more than 0.1
    sign_flips: int = 0  # a number is on the other side of 0, both by more than 0.05
    saturated: int = 0  # a number of the candidate is at a limit where the sent one is not
    jerk_stable: float = 0.0  # sums of the largest change of a number between two actions
    jerk_candidate: float = 0.0
    latency_s: float = 0.0  # sum, of the candidate
    errors: int = 0
    non_finite: int = 0

    def add(self, other: "ShadowCounts") -> None:
        """Adds the counts of another server."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class RolloutCounts(msgspec.Struct, dict=True):
    """Everything that servers have counted since a rollout began."""

    stable: ArmCounts = msgspec.field(default_factory=ArmCounts)
    candidate: ArmCounts = msgspec.field(default_factory=ArmCounts)
    shadow: ShadowCounts = msgspec.field(default_factory=ShadowCounts)
    rewards: list[Outcome] = []  # in no order
    successes: list[Outcome] = []
    # Time of the newest outcome that was dropped to make room: older ones have no company.
    rewards_dropped_s: float = 0.0
    successes_dropped_s: float = 0.0

    def __post_init__(self) -> None:
        self._evidence: dict[str, Evidence] = {}  # by KPI, of the present outcomes
        # By KPI, and whether it is the canary: places of the outcomes in the list, the oldest first
        self._places: dict[Kpi, dict[bool, deque[int]]] = {}

    def add_outcome(self, kpi: Kpi, outcome: Outcome) -> None:
        """Adds an outcome; of too many of the same version, it takes the place of the oldest.

        The work does not grow with the number of outcomes.
        """
        outcomes = self.rewards if kpi == "reward" else self.successes
        if kpi not in self._places:
            self._places[kpi] = _places(outcomes)
        places = self._places[kpi][outcome.is_canary]
        self._evidence.clear()
        if len(places) < MAX_OUTCOMES:
            places.append(len(outcomes))
            outcomes.append(outcome)
            return
        place = places.popleft()
        places.append(place)
        dropped_s = outcomes[place].time_s
        outcomes[place] = outcome
        if kpi == "reward":
            self.rewards_dropped_s = max(self.rewards_dropped_s, dropped_s)
        else:
            self.successes_dropped_s = max(self.successes_dropped_s, dropped_s)

    def add(self, other: "RolloutCounts") -> None:
        """Adds the counts of another server."""
        self._evidence.clear()
        self._places.clear()
        self.stable.add(other.stable)
        self.candidate.add(other.candidate)
        self.shadow.add(other.shadow)
        self.rewards = [*self.rewards, *other.rewards]
        self.successes = [*self.successes, *other.successes]
        self.rewards_dropped_s = max(self.rewards_dropped_s, other.rewards_dropped_s)
        self.successes_dropped_s = max(self.successes_dropped_s, other.successes_dropped_s)

    def value(self, name: str) -> float | None:
        """Returns the value of a metric of `serve.delivery.specification`, or None without data."""
        shadow = self.shadow
        if name in _SHARES:
            return _ratio(getattr(self.candidate, _SHARES[name]), self.candidate.answers)
        if name == "latencyRatio":
            mean_s = _ratio(self.candidate.latency_s, self.candidate.timed)
            stable_s = _ratio(self.stable.latency_s, self.stable.timed)
            return None if mean_s is None or stable_s is None else _ratio(mean_s, stable_s)
        if name == "actionDifferenceShare":
            return _ratio(shadow.differing, shadow.pairs)
        if name == "signFlipShare":
            return _ratio(shadow.sign_flips, shadow.pairs)
        if name == "saturationShare":
            return _ratio(shadow.saturated, shadow.pairs)
        if name == "jerkRatio":
            return _ratio(shadow.jerk_candidate, shadow.jerk_stable)
        evidence = self.evidence("reward" if name == "rewardDifference" else "success")
        return evidence.difference if evidence.pairs else None

    def evidence(self, kpi: str) -> Evidence:
        """Compares the candidate's KPI with the stable version's.

        With many outcomes it takes some milliseconds, once until they change.
        """
        if kpi not in self._evidence:
            self._evidence[kpi] = self._compared(kpi)
        return self._evidence[kpi]

    def take_evidence(self, kpi: str, earlier: "RolloutCounts") -> None:
        """Takes what an earlier total has found about a KPI, if the outcomes are the same."""
        if self._outcomes(kpi) == earlier._outcomes(kpi):
            self._evidence[kpi] = earlier.evidence(kpi)

    def _outcomes(self, kpi: str) -> tuple[list[Outcome], float]:
        """Returns the outcomes, and the time up to which some were dropped."""
        if kpi == "reward":
            return self.rewards, self.rewards_dropped_s
        return self.successes, self.successes_dropped_s

    def _compared(self, kpi: str) -> Evidence:
        outcomes, since_s = self._outcomes(kpi)
        # Another program may have written the file that a number comes from.
        usable = [
            one for one in outcomes if one.time_s > since_s and abs(one.value) <= LARGEST_REWARD
        ]
        evidence = paired_evidence(paired_differences(usable))
        return evidence._replace(is_cut=since_s > 0.0)


def pooled(counts: Iterable[RolloutCounts]) -> RolloutCounts:
    """Returns the sum over servers."""
    total = RolloutCounts()
    for one in counts:
        total.add(one)
    return total


def _places(outcomes: list[Outcome]) -> dict[bool, deque[int]]:
    """Returns where the outcomes of both versions stand in a list, the oldest first."""
    places: dict[bool, deque[int]] = {False: deque(), True: deque()}
    for place in sorted(range(len(outcomes)), key=lambda place: outcomes[place].time_s):
        places[outcomes[place].is_canary].append(place)
    return places


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
