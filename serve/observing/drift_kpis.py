"""Compares the laps that cars report, by reward and success, with those of the evaluation."""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEWEST_LAPS, FEWEST_LAPS = 100, 20  # that cars reported
SMALLEST_SHORTFALL = 0.1  # of the mean reward
# One-sided, for every lap of a day: z of the difference of means, and the exact probability.
_LEVEL_Z, _LEVEL = 4.5, 1e-6


class KpiFinding(NamedTuple):
    """The mean of a KPI over the newest reported laps, and whether it is too low."""

    laps: int
    mean: float
    expected: float
    shortfall: float  # as a share of what is expected; negative if the laps are better
    is_low: bool


def compare_rewards(rewards: Sequence[float], reference: np.ndarray) -> KpiFinding | None:
    """Tests for a mean that is 10 % lower, and by more than chance; None for too few laps.

    `reference` are the rewards `[M]` of the evaluation's laps.
    """
    if len(rewards) < FEWEST_LAPS or len(reference) < FEWEST_LAPS:
        return None
    newest = np.asarray(rewards, np.float64)
    mean, expected = float(newest.mean()), float(reference.mean())
    shortfall = (expected - mean) / max(abs(expected), 1e-9)
    error = math.sqrt(newest.var() / len(newest) + reference.var() / len(reference))
    is_significant = expected - mean > _LEVEL_Z * error
    is_low = shortfall >= SMALLEST_SHORTFALL and is_significant
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
    is_low = ways / math.comb(laps + usual_laps, all_hits) < _LEVEL
    shortfall = (expected - mean) / max(expected, 1e-9)
    return KpiFinding(laps, mean, expected, shortfall, is_low)


class ReportedLaps:
    """The newest laps that cars reported for one version; laps of people must not come here."""

    def __init__(self) -> None:
        self.rewards: deque[float] = deque(maxlen=NEWEST_LAPS)
        self.successes: deque[bool] = deque(maxlen=NEWEST_LAPS)

    def add(self, reward: float | None, success: bool | None) -> None:
        """Adds what is known of one lap."""
        if reward is not None and math.isfinite(reward):
            self.rewards.append(reward)
        if success is not None:
            self.successes.append(success)
