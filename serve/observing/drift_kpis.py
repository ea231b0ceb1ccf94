"""Compares the laps that cars report, by reward and success, with those of the evaluation."""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from serve.observing.drift import EVALUATIONS_PER_DAY

NEWEST_LAPS, FEWEST_LAPS = 100, 20  # that cars reported
SMALLEST_SHORTFALL = 0.1  # of the mean reward
# Of a version in one server process, for both tests together while nothing has changed. The tests
# are repeated as often as those of a window of laps.
FALSE_ALARMS_PER_DAY = 0.05
LEVEL = FALSE_ALARMS_PER_DAY / EVALUATIONS_PER_DAY / 2  # of one test at one look; one-sided


class KpiFinding(NamedTuple):
    """The mean of a KPI over the newest reported laps, and whether it is too low."""

    laps: int
    mean: float
    expected: float
    shortfall: float  # as a share of what is expected; negative if the laps are better
    is_low: bool


def compare_rewards(rewards: Sequence[float], reference: np.ndarray) -> KpiFinding | None:
    """Tests for a mean that is 10 % lower (Welch's t-test); None for too few laps.

    `reference` are the rewards `[M]` of the evaluation's laps.
    """
    if len(rewards) < FEWEST_LAPS or len(reference) < FEWEST_LAPS:
        return None
    newest = np.asarray(rewards, np.float64)
    mean, expected = float(newest.mean()), float(reference.mean())
    shortfall = (expected - mean) / max(abs(expected), 1e-9)
    is_low = shortfall >= SMALLEST_SHORTFALL and _welch_tail(newest, reference) < LEVEL
    return KpiFinding(len(newest), mean, expected, shortfall, is_low)


def compare_successes(successes: Sequence[bool], reference: np.ndarray) -> KpiFinding | None:
    """Tests for fewer successes (Fisher's exact test); None for too few laps.

    `reference` `[M]` bool: the laps of the evaluation that were completed.
    """
    if len(successes) < FEWEST_LAPS or len(reference) < FEWEST_LAPS:
        return None
    laps, usual_laps = len(successes), len(reference)
    hits, usual_hits = sum(successes), int(reference.sum())
    mean, expected = hits / laps, usual_hits / usual_laps
    all_hits = hits + usual_hits
    ways = sum(
        math.comb(laps, fewer) * math.comb(usual_laps, all_hits - fewer)
        for fewer in range(max(0, all_hits - usual_laps), hits + 1)
    )
    is_low = ways / math.comb(laps + usual_laps, all_hits) < LEVEL
    shortfall = (expected - mean) / max(expected, 1e-9)
    return KpiFinding(laps, mean, expected, shortfall, is_low)


def _welch_tail(newest: np.ndarray, reference: np.ndarray) -> float:
    """Returns the probability that equal means give a mean of the newest that is so much lower.

    The degrees of freedom are those of Welch and Satterthwaite.
    """
    own = float(newest.var(ddof=1)) / len(newest)
    usual = float(reference.var(ddof=1)) / len(reference)
    difference = float(newest.mean() - reference.mean())
    if own + usual == 0.0:
        return 0.0 if difference < 0.0 else 1.0
    share = own / (own + usual)
    freedom = 1.0 / (share**2 / (len(newest) - 1) + (1.0 - share) ** 2 / (len(reference) - 1))
    return float(stdtr(freedom, difference / math.sqrt(own + usual)))


class ReportedLaps:
    """The newest laps that cars reported for one version; laps of people must not come here."""

    def __init__(self) -> None:
        self.laps = 0  # that were ever reported
        self.rewards: deque[float] = deque(maxlen=NEWEST_LAPS)
        self.successes: deque[bool] = deque(maxlen=NEWEST_LAPS)

    def add(self, reward: float | None, success: bool | None) -> None:
        """Adds what is known of one lap."""
        self.laps += 1
        if reward is not None and math.isfinite(reward):
            self.rewards.append(reward)
        if success is not None:
            self.successes.append(success)
