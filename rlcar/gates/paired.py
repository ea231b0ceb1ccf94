"""Decides from paired costs whether a candidate may replace the stable version."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class GateResult(NamedTuple):
    """The decision of a gate."""

    passed: bool
    reason: str  # one sentence
    figures: dict[str, Any]  # for JSON


class PairedCosts(NamedTuple):
    """Costs of both versions on the same T tracks with the same S seeds; lower is better."""

    stable: np.ndarray  # [T, S]
    candidate: np.ndarray  # [T, S]


class Interval(NamedTuple):
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_interval(difference: np.ndarray) -> Interval:
    """Returns Student's interval of the mean of differences `[T]` of independent tracks.

    Between equal versions a difference is as likely as its opposite, however far the tails reach
    that crashes cause. For such distributions the interval is at least as wide as promised.
    """
    difference = np.asarray(difference, np.float64)
    if difference.ndim != 1 or len(difference) < 2 or not np.isfinite(difference).all():
        raise ValueError(f"differences of shape {list(difference.shape)} have no interval")
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(difference) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def decide(costs: Mapping[str, PairedCosts], margin: float, unit: str) -> GateResult:
    """Decides from the costs in each world, which all have the same tracks.

    The improvement of a track is the stable version's cost minus the candidate's, averaged over its
    seeds and worlds. The candidate passes if the lower end of the 95 % interval of the mean
    improvement is above `-margin`, unless in one world the whole interval is below `-margin`.
    Of equal versions at most 2.5 % pass with a margin of 0. `unit` is that of the costs.
    """
    by_world = {
        name: (one.stable - one.candidate).mean(axis=1, dtype=np.float64)
        for name, one in costs.items()
    }
    overall = paired_interval(np.mean(list(by_world.values()), axis=0))
    intervals = {name: paired_interval(one) for name, one in by_world.items()}
    worse = [name for name, one in intervals.items() if one.high < -margin]
    figures = {
        "improvement": overall._asdict(),
        "unit": unit,
        "margin": margin,
        "confidence": CONFIDENCE,
        "worlds": {
            name: {
                "tracks": one.stable.shape[0],
                "seeds": one.stable.shape[1],
                "stable_cost": float(one.stable.mean(dtype=np.float64)),
                "candidate_cost": float(one.candidate.mean(dtype=np.float64)),
                "improvement": intervals[name]._asdict(),
                "is_worse": name in worse,
            }
            for name, one in costs.items()
        },
    }
    if worse:
        text = "; ".join(f"{_words(intervals[name], unit)} in {name}" for name in worse)
        return GateResult(False, f"it is worse in a world: {text}", figures)
    limit = f"above {-margin:g}" if margin else "above 0"
    if overall.low > -margin:
        return GateResult(True, f"{_words(overall, unit)}, {limit}", figures)
    reason = f"{_words(overall, unit)}, but the whole interval must be {limit}"
    return GateResult(False, reason, figures)


def _words(improvement: Interval, unit: str) -> str:
    low, high = improvement.low, improvement.high
    return f"improvement {improvement.mean:.4g} {unit} (95 % interval {low:.4g} to {high:.4g})"
