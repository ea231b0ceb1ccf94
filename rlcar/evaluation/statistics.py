"""Robust averages over runs and tracks, and a check of stored means and variances."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> float:
    """Returns the mean of the middle half of all scores; scores at its edges count in part."""
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    if not ordered.size or not np.isfinite(ordered).all():
        raise ValueError(f"{ordered.size} scores, not all finite: they have no mean")
    # A score of rank i covers the share i/n to (i + 1)/n of the whole.
    edges = np.arange(ordered.size + 1) / ordered.size
    inside = np.clip(edges[1:], 0.25, 0.75) - np.clip(edges[:-1], 0.25, 0.75)
    return float((ordered * inside).sum() / inside.sum())


def bootstrap_interquartile_mean(
    scores: np.ndarray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Returns the interquartile mean of `scores [runs, tracks]` with its percentile interval.

    Each resample keeps all tracks, which are strata, and draws runs with replacement (Agarwal et
    al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", Sec. 4). There
    each task has runs of its own and draws them separately. Here, one run drives every track, so a
    run is drawn with all of its scores. Drawing track by track would average out the effect of a
    seed on all tracks. The interval shows the influence of the training seed. It has no width for a
    single run, and is too narrow for few: with three runs it contains the true value in three of
    four trials, with five in six of seven.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores have shape {list(scores.shape)}, not [runs, tracks]")
    runs = len(scores)
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs))
    means = [interquartile_mean(scores[rows]) for rows in drawn]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(interquartile_mean(scores), float(low), float(high))


def wilson_interval(successes: int, episodes: int, deviations: float) -> tuple[float, float]:
    """Returns the Wilson interval of a success rate (Wilson 1927, "Probable Inference", Eq. 8).

    `deviations` is the quantile of the normal distribution: 1.96 for both ends of a 95 % interval,
    1.645 for one end alone. Without episodes nothing is known: the result is (0, 1).
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes in {episodes} episodes are impossible")
    if episodes == 0:
        return 0.0, 1.0
    rate, squared = successes / episodes, deviations**2
    middle = (rate + squared / (2 * episodes)) / (1 + squared / episodes)
    spread = math.sqrt(rate * (1 - rate) / episodes + squared / (4 * episodes**2))
    half = abs(deviations) / (1 + squared / episodes) * spread
    return max(0.0, middle - half), min(1.0, middle + half)


def impossible_moments(arrays: Mapping[str, np.ndarray]) -> str:
    """Describes the first `*.variance` or `*.count` that is impossible; empty if there is none."""
    for name in (name for name in arrays if name.endswith(".variance")):
        count = f"{name.removesuffix('variance')}count"
        if (arrays[name] < 0.0).any():
            return f"{name} is {arrays[name].min():.3g}, and a variance is never negative"
        if count in arrays and not (arrays[count] > 0.0).all():
            return f"{count} is {np.min(arrays[count]):.3g}, and a count is positive"
    return ""
