"""Compares how often two versions answer too late, as overload of the machine delays both."""

import math
from typing import NamedTuple

from serve.delivery.specification import AutomaticRollback

_WINDOW_S = 15
_FEWEST_SECONDS = 3  # with a late answer; one burst of load ends sooner
_FEWEST_STABLE = 20  # answers; with fewer there is nothing to compare with
_MOST = 0.6  # share of late answers that cannot be right, even without a comparison


class Late(NamedTuple):
    """The answers within the last seconds, and the result of the comparison."""

    answers: int
    late: int
    stable_answers: int
    stable_late: int
    is_alarm: bool


class Lateness:
    """A likelihood ratio test of the answers within the last 15 s.

    It tests two shares of late answers, one for each version, against one share of both, which the
    load of the machine would cause. Without enough answers of the stable version, most answers of
    the candidate must be late.
    """

    def __init__(self, rollback: AutomaticRollback):
        self._faulty = rollback.faulty_share
        self._limit = -math.log(rollback.false_alarm)
        # by second: answers and late answers of the stable version, then of the candidate
        self._seconds: dict[int, list[int]] = {}

    def add(self, time_s: float, is_candidate: bool, is_late: bool) -> None:
        """Counts one answer."""
        second = int(time_s)
        counts = self._seconds.get(second)
        if counts is None:
            counts = self._seconds[second] = [0, 0, 0, 0]
            for old in [one for one in self._seconds if one <= second - _WINDOW_S]:
                del self._seconds[old]
        arm = 2 if is_candidate else 0
        counts[arm] += 1
        counts[arm + 1] += is_late

    def at(self, time_s: float) -> Late:
        """Returns the comparison at a time."""
        recent = [one for second, one in self._seconds.items() if second > time_s - _WINDOW_S]
        stable_answers, stable_late, answers, late = (
            sum(one[index] for one in recent) for index in range(4)
        )
        is_lasting = sum(one[3] > 0 for one in recent) >= _FEWEST_SECONDS
        is_alarm = is_lasting and self._differs(stable_answers, stable_late, answers, late)
        return Late(answers, late, stable_answers, stable_late, is_alarm)

    def _differs(self, stable_answers: int, stable_late: int, answers: int, late: int) -> bool:
        share, stable_share = late / answers, stable_late / max(stable_answers, 1)
        if share <= max(stable_share, self._faulty):
            return False
        if stable_answers < _FEWEST_STABLE and share > _MOST and stable_share < _MOST / 2:
            return True
        both = (late + stable_late) / (answers + stable_answers)
        gain = _gain(late, answers, both) + _gain(stable_late, stable_answers, both)
        return gain >= self._limit


def _gain(late: int, answers: int, share: float) -> float:
    """Returns the log likelihood ratio of a version's own share of late answers to `share`."""
    gain = 0.0
    for count, probability in ((late, share), (answers - late, 1.0 - share)):
        if count:
            gain += count * math.log(count / answers / probability)
    return gain
