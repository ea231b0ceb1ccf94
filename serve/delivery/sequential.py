"""Sequential tests, which stay valid however often one looks at them.

`Cusum` finds a change in the share of faulty answers; `paired_evidence` tests whether two versions
differ in the mean of a KPI.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_PRIOR_EFFECT = 1.0  # standard deviation of the effects that the mixture expects, in sigmas
_ROUNDING = 1e-9  # four faults at 0.1 % against 1 % are exactly ln 1e4


class Cusum:
    """Page's cumulative sum for the share of faulty answers: `usual` against `faulty`.

    The score is the largest log likelihood ratio over all times at which the share may have
    changed. The alarm is at `1 / false_alarm`: with the usual share of faults, the mean number of
    answers between two false alarms is at least that.
    """

    def __init__(self, usual: float, faulty: float, false_alarm: float):
        self._fault = math.log(faulty / usual)
        self._success = math.log((1.0 - faulty) / (1.0 - usual))
        self._limit = -math.log(false_alarm)
        self.score = 0.0

    def add(self, faults: int, answers: int) -> bool:
        """Adds `answers`, of which `faults` are faulty; returns whether to raise the alarm."""
        gain = faults * self._fault + (answers - faults) * self._success
        self.score = max(0.0, self.score + gain)
        return self.is_alarm

    @property
    def is_alarm(self) -> bool:
        """Whether the change has been found."""
        return self.score >= self._limit - _ROUNDING


class Evidence(NamedTuple):
    """The result of a comparison of the candidate's KPI with the stable version's."""

    log_ratio: float  # logarithm of the mixture likelihood ratio against equal means
    difference: float  # mean of candidate - stable
    pairs: int
    is_cut: bool = False  # older laps were dropped to make room, so there may never be more pairs

    def is_significant(self, significance: float) -> bool:
        """Whether two equal versions would look like this with at most this probability."""
        return self.log_ratio >= -math.log(significance)


def paired_evidence(differences: Sequence[float]) -> Evidence:
    """Returns the mixture sequential probability ratio of paired differences `[n]`.

    It is the ratio of a mixture of normal effects (in standard deviations, of unknown size) to no
    effect. Under no effect it is a martingale in n, so by Ville's inequality it ever exceeds 1 / p
    with probability p at most, whenever one stops.
    """
    pairs = len(differences)
    if pairs < 2:
        return Evidence(0.0, differences[0] if pairs else 0.0, pairs)
    mean = math.fsum(differences) / pairs
    spread = math.fsum((difference - mean) ** 2 for difference in differences)
    shrunk = 1.0 + pairs * _PRIOR_EFFECT**2
    signal = pairs * mean * mean
    if signal == 0.0:
        return Evidence(-0.5 * math.log(shrunk), mean, pairs)
    # Without any spread the ratio is bounded by its limit, which grows with n.
    noise = max(spread, 1e-12 * signal)
    # log of ((noise + signal) / (noise + signal / shrunk)) ** (n / 2) / sqrt(shrunk)
    log_ratio = 0.5 * pairs * math.log((noise + signal) / (noise + signal / shrunk))
    return Evidence(log_ratio - 0.5 * math.log(shrunk), mean, pairs)


class Outcome(NamedTuple):
    """A KPI that a car reported: of a lap or an episode."""

    time_s: float
    is_canary: bool
    value: float


def paired_differences(outcomes: Iterable[Outcome]) -> list[float]:
    """Pairs each outcome of the canary with the stable ones since the pair before, by their mean.

    Every outcome is used at most once, so the differences are independent. With 10 % of the
    sessions on the canary, each of its laps is compared with the mean of about nine others.
    """
    differences: list[float] = []
    canary: list[float] = []
    stable: list[float] = []
    for outcome in sorted(outcomes):
        (canary if outcome.is_canary else stable).append(outcome.value)
        if canary and stable and outcome.is_canary:
            differences.append(canary.pop(0) - math.fsum(stable) / len(stable))
            stable.clear()
        elif len(canary) > 1 and stable:  # the canary is ahead: one by one
            differences.append(canary.pop(0) - stable.pop(0))
    return differences
