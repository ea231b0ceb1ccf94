"""Averages over runs and tracks that a few lucky runs cannot carry, and moments that cannot be."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with the interval that resampling gives it."""

    mean: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> float:
    """Returns the mean of the middle half of all scores; those at its edges count in part."""
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    if not ordered.size or not np.isfinite(ordered).all():
        raise ValueError(f"{ordered.size} scores, not all finite: there is no mean of them")
    # A score of rank i covers the share i/n to (i + 1)/n of the whole.
    edges = np.arange(ordered.size + 1) / ordered.size
    inside = np.clip(edges[1:], 0.25, 0.75) - np.clip(edges[:-1], 0.25, 0.75)
    return float((ordered * inside).sum() / inside.sum())


def bootstrap_interquartile_mean(
    scores: np.ndarray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Returns the interquartile mean of `scores [runs, tracks]` with its percentile interval.

    The tracks are strata that each resample has as they are; the runs are redrawn with replacement
    (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    Sec. 4). There each task draws its runs anew, as they are runs of that task alone; here one run
    drives every track, so it is redrawn with all of its scores: drawn track by track, what a seed
    does to all of them would average out of the interval. The interval says what other training
    seeds could have shown; one run alone has none to draw, and few make it too narrow (three hold
    the truth in three of four trials, five in six of seven).
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


def impossible_moments(arrays: Mapping[str, np.ndarray]) -> str:
    """Names the first of `*.variance` and its `*.count` that no data can have; else nothing."""
    for name in (name for name in arrays if name.endswith(".variance")):
        count = f"{name.removesuffix('variance')}count"
        if (arrays[name] < 0.0).any():
            return f"{name} is {arrays[name].min():.3g}, which no variance is"
        if count in arrays and not (arrays[count] > 0.0).all():
            return f"{count} is {np.min(arrays[count]):.3g}, and not positive"
    return ""
