"""Ratings with uncertainty from the results of races, by the library openskill."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from openskill.models import BradleyTerryFull


class Rating(NamedTuple):
    """The estimated skill of a driver: a normal distribution; a new driver has 25 +- 8.3."""

    mean: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float]:
        """Mean minus and plus two standard deviations: about 95 %."""
        return self.mean - 2 * self.deviation, self.mean + 2 * self.deviation


def rate(
    names: Sequence[str], scores: Mapping[tuple[str, str], np.ndarray], seed: int = 0
) -> dict[str, Rating]:
    """Rates drivers by the Bradley-Terry model (Weng and Lin 2011, algorithm 1).

    `scores` are the results of the first of two drivers, `[R]`: 1 for a win, 0.5 for a draw, 0 for
    a defeat. The model learns race by race. The races therefore come in a random order, which
    depends on `seed` alone.
    """
    model = BradleyTerryFull()
    ratings = {name: model.rating(name=name) for name in names}
    races = [(pair, float(score)) for pair, all_ in scores.items() for score in all_]
    for index in np.random.default_rng(seed).permutation(len(races)):
        (first, second), score = races[index]
        teams = [[ratings[first]], [ratings[second]]]
        [[ratings[first]], [ratings[second]]] = model.rate(teams, scores=[score, 1.0 - score])
    return {name: Rating(rating.mu, rating.sigma) for name, rating in ratings.items()}
