"""Tests whether a window of served laps differs from the laps of a version's evaluation.

Three tests look at the same window, each at the level of laps, because consecutive steps are not
independent: the population stability index (PSI) of each channel's histogram, the
Kolmogorov-Smirnov (KS) distance of each lap statistic, and the energy distance of all lap
statistics together. The false alarms of a day are divided over the evaluations of a day, and then
over the three tests and their channels (Bonferroni).
"""

from typing import Literal, NamedTuple

import numpy as np

from rlcar.evaluation.lap_reference import TOLERANCE, LapStatistics, Reference

WINDOW_LAPS = 10
EVERY_S = 10.0  # a window is examined at most so often
FALSE_ALARMS_PER_DAY = 0.5  # of a version in one server process, while nothing has changed
EVALUATIONS_PER_DAY = 86_400 / EVERY_S
_RESAMPLES = 2000  # of the reference's own laps, from which thresholds are extrapolated
_TAIL = 0.05  # share of the resamples whose excess gives the slope of the tail
_SMALLEST_SHARE = 0.005  # of a bin, so that an empty one keeps the PSI finite
# Below these, a difference is too small to matter even if it is significant. One odd lap of ten,
# such as a crash, gives a PSI of 0.3.
_SMALLEST_PSI, _SMALLEST_ENERGY = 0.4, 0.5
_MOST_DEVIATIONS = 4.0  # of a lap in the energy distance, so that one odd lap is not all of it

TestName = Literal["psi", "ks", "energy"]
TESTS: tuple[TestName, ...] = ("psi", "ks", "energy")


class Finding(NamedTuple):
    """What one test says of a window; there is drift where the value reaches the threshold."""

    test: TestName
    value: float
    threshold: float
    channel: int | None  # the one with the largest excess; None for the energy distance

    @property
    def is_drift(self) -> bool:
        """Whether the window differs."""
        return self.value >= self.threshold


class Detector:
    """The thresholds for one reference; a pure function of the window after that."""

    def __init__(self, reference: Reference, false_alarms_per_day: float = FALSE_ALARMS_PER_DAY):
        self.reference = reference
        laps = reference.laps
        level = false_alarms_per_day / EVALUATIONS_PER_DAY / len(TESTS)
        features = np.concatenate([laps.mean, laps.deviation], axis=1)
        self._sorted = np.sort(features, axis=0)
        self._center = features.mean(axis=0)
        self._scale = np.maximum(features.std(axis=0), TOLERANCE)
        self._scaled = self._deviations(features)
        self._expected = laps.share.mean(axis=0)
        between = _distances(self._scaled, self._scaled)
        self._spread = _mean_between(between)
        count, statistics = features.shape
        self.ks_threshold = _ks_threshold(level / statistics, WINDOW_LAPS, count)
        psi, energy = _resampled(laps.share, between)
        self.energy_threshold = max(_SMALLEST_ENERGY, _tail_threshold(energy, level))
        channels = laps.share.shape[1]
        self.psi_threshold = np.array(
            [max(_SMALLEST_PSI, _tail_threshold(one, level / channels)) for one in psi.T]
        )

    def examine(self, window: LapStatistics) -> tuple[Finding, ...]:
        """Runs the three tests on `WINDOW_LAPS` laps."""
        assert len(window.mean) == WINDOW_LAPS, window.mean.shape
        psi = population_stability(window.share.mean(axis=0), self._expected)
        worst = int((psi / self.psi_threshold).argmax())
        features = np.concatenate([window.mean, window.deviation], axis=1)
        distances = self.ks_distances(features)
        widest = int(distances.argmax())
        scaled = self._deviations(features)
        to_reference = float(_distances(scaled, self._scaled).mean())
        energy = 2 * to_reference - _mean_between(_distances(scaled, scaled)) - self._spread
        return (
            Finding("psi", float(psi[worst]), float(self.psi_threshold[worst]), worst),
            Finding(
                "ks", float(distances[widest]), self.ks_threshold, widest % window.mean.shape[1]
            ),
            Finding("energy", float(energy), self.energy_threshold, None),
        )

    def _deviations(self, features: np.ndarray) -> np.ndarray:
        """Returns how far laps `[M, F]` are from the mean of the reference, in its deviations."""
        scaled = (features - self._center) / self._scale
        return np.clip(scaled, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)

    def ks_distances(self, features: np.ndarray) -> np.ndarray:
        """Returns the KS distance of each statistic `[F]` of the window's laps `[W, F]`.

        Differences up to `TOLERANCE` are ignored: a window may be moved by so much.
        """
        return np.array(
            [
                ks_distance(window, reference, TOLERANCE)
                for window, reference in zip(features.T, self._sorted.T, strict=True)
            ]
        )

    def shifts(self, window: LapStatistics) -> np.ndarray:
        """Returns how far each channel's mean has moved `[C]`, in deviations between laps."""
        channels = window.mean.shape[1]
        moved = window.mean.mean(axis=0) - self._center[:channels]
        return np.asarray(moved / self._scale[:channels])


def population_stability(share: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns the PSI `[...]` of histograms `[..., BINS]`; 0 for equal ones."""
    observed = np.maximum(share, _SMALLEST_SHARE)
    usual = np.maximum(expected, _SMALLEST_SHARE)
    return np.asarray(((observed - usual) * np.log(observed / usual)).sum(axis=-1))


def ks_distance(window: np.ndarray, reference: np.ndarray, tolerance: float = 0.0) -> float:
    """Returns the largest difference of two distribution functions; `reference` is sorted.

    The window may be moved by up to `tolerance` in the direction that makes it smaller.
    """

    def largest(moved: np.ndarray, sign: int) -> float:
        values = np.concatenate([moved, reference])
        below = np.searchsorted(moved, values, side="right") / len(moved)
        usual = np.searchsorted(reference, values, side="right") / len(reference)
        return float((sign * (below - usual)).max())

    ordered = np.sort(window)
    # The window lies lower where its distribution function is larger, and is moved up.
    return max(0.0, largest(ordered + tolerance, 1), largest(ordered - tolerance, -1))


def ks_tail(distance: float, first: int, second: int) -> float:
    """Returns the exact probability that two equally distributed samples differ by so much.

    It counts the orders of the samples as lattice paths that stay inside the distance (Hodges
    1958).
    """
    limit = distance * first * second - 1e-9
    paths = [0] * (second + 1)
    for row in range(first + 1):
        for column in range(second + 1):
            is_inside = abs(row * second - column * first) < limit
            if row == column == 0:
                paths[0] = 1
            elif not is_inside:
                paths[column] = 0
            elif column > 0:
                paths[column] += paths[column - 1]
    total = 1
    for index in range(1, first + 1):
        total = total * (second + index) // index
    return 1.0 - paths[second] / total


def _ks_threshold(level: float, first: int, second: int) -> float:
    """Returns the smallest distance that is at least so improbable; above 1 if there is none."""
    product = first * second
    low, high = 0, product + 1  # in units of 1 / product
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if ks_tail(middle / product, first, second) <= level
            else (
                middle,
                high,
            )
        )
    return high / product


def _resampled(share: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns PSI `[R, C]` and energy distances `[R]` of windows of the reference's own laps.

    Each time another half of the laps is the reference, so that its own chance is included: the
    thresholds are those of a reference of half the size, and therefore rather high.
    """
    rng = np.random.default_rng(0)
    laps = len(share)
    half = laps // 2
    psi, energy = [], []
    for _ in range(_RESAMPLES):
        order = rng.permutation(laps)
        usual, window = order[:half], order[half : half + WINDOW_LAPS]
        psi.append(population_stability(share[window].mean(axis=0), share[usual].mean(axis=0)))
        spread = _mean_between(between[np.ix_(usual, usual)])
        own = _mean_between(between[np.ix_(window, window)])
        energy.append(2 * float(between[np.ix_(window, usual)].mean()) - own - spread)
    return np.array(psi), np.array(energy)


def _tail_threshold(values: np.ndarray, level: float) -> float:
    """Extrapolates the value that is exceeded with probability `level`: an exponential tail."""
    edge = float(np.quantile(values, 1.0 - _TAIL))
    slope = float((values[values >= edge] - edge).mean())
    return edge + slope * float(np.log(_TAIL / level))


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distances `[M, N]` between rows `[M, F]` and `[N, F]`."""
    return np.asarray(np.linalg.norm(first[:, None] - second[None], axis=2))


def _mean_between(distances: np.ndarray) -> float:
    """Returns the mean distance between different rows of one sample; the diagonal is 0."""
    count = len(distances)
    return float(distances.sum() / (count * (count - 1)))
