"""From checks and estimates to a verdict: better, worse or unknown."""

from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

Verdict = Literal["better", "worse", "unknown"]
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    mean: float
    low: float
    high: float


def interval_of_members(members: np.ndarray, bias: float = 0.0) -> Interval:
    """Returns mean and 95 % interval of the estimates `[K]` of an ensemble.

    Each member learned from a bootstrap sample of the episodes, so the standard deviation of the
    members is the standard error of an estimate. The quantile is Student's, because it is estimated
    from few members. `bias` widens the interval on both sides.
    """
    mean, deviation = float(members.mean()), float(members.std(ddof=1))
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(members) - 1))
    half = quantile * deviation + abs(bias)
    return Interval(mean, mean - half, mean + half)


def verdict_of(difference: Interval | None, problems: list[str]) -> tuple[Verdict, str]:
    """Returns the verdict about a difference to the policy compared with, and its reason.

    Any problem makes it `unknown`: an estimate that failed a check says nothing. Only then the
    difference may be None.
    """
    if problems or difference is None:
        return "unknown", "; ".join(problems)
    if difference.low > 0.0:
        return "better", "the whole interval of the difference is above 0"
    if difference.high < 0.0:
        return "worse", "the whole interval of the difference is below 0"
    return "unknown", "the interval of the difference contains 0: record more episodes"
