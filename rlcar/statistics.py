"""Averages over runs and tracks that a few lucky runs cannot carry."""

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

    Stratified: each track draws its runs anew, with replacement (Agarwal et al. 2021, "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice", Sec. 4). The interval says
    what other training seeds could have shown; one run alone has none to draw.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores have shape {list(scores.shape)}, not [runs, tracks]")
    runs, tracks = scores.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(runs, size=(resamples, runs, tracks))
    means = [interquartile_mean(scores[rows, np.arange(tracks)]) for rows in drawn]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(interquartile_mean(scores), float(low), float(high))
