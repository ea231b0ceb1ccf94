"""The tests for drift: known numbers, and real laps with and without a wrong sensor."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config.race import RaceConfig
from rlcar.evaluation.drivers import longest_ray
from rlcar.evaluation.lap_reference import (
    BINS,
    LapStatistics,
    lap_statistics,
    make_lap_reference,
    settled,
)
from rlcar.evaluation.laps import drive
from rlcar.track import TRACK_SETS
from serve.observing.drift import (
    WINDOW_LAPS,
    Detector,
    ks_distance,
    ks_tail,
    population_stability,
)

USUAL, FRESH, BIASED = 64, 256, 64  # laps


def test_equal_histograms_have_no_psi_and_an_emptied_bin_a_finite_one():
    usual = np.full(BINS, 0.1)
    assert population_stability(usual, usual) == 0.0
    moved = usual.copy()
    moved[:2] = 0.0, 0.2
    by_hand = (0.005 - 0.1) * math.log(0.005 / 0.1) + (0.2 - 0.1) * math.log(2.0)
    assert population_stability(moved, usual) == pytest.approx(by_hand)


def test_the_ks_distance_ignores_a_shift_within_the_tolerance():
    reference = np.linspace(0.0, 1.0, 101)
    assert ks_distance(np.array([2.0, 3.0]), reference) == 1.0
    assert ks_distance(np.array([-1.0]), reference) == 1.0
    assert ks_distance(np.full(10, 0.5), reference) == pytest.approx(50 / 101)
    constant = np.ones(64)
    assert ks_distance(np.full(10, 0.999), constant) == 1.0
    assert ks_distance(np.full(10, 0.999), constant, 0.005) == 0.0


def test_the_tail_of_the_ks_distance_is_exact():
    # Of the 6 orders of two and two numbers, 2 separate the samples, and 4 differ by a half.
    assert ks_tail(1.0, 2, 2) == pytest.approx(2 / 6)
    assert ks_tail(0.5, 2, 2) == pytest.approx(1.0)
    assert ks_tail(1.0, 10, 64) == pytest.approx(2 / math.comb(74, 10), rel=1e-3)


@pytest.fixture(scope="module")
def laps():
    """Laps of the test tracks, of other tracks, and of those with rays that are 10 % too long."""
    tracks = [*TRACK_SETS["test"], *range(200_000, 200_000 + FRESH + BIASED)]
    factor = np.ones((len(tracks), 6), np.float32)
    factor[USUAL + FRESH :, :5] = 1.1

    def act(params, carry, time_step, key, explore):
        seen = time_step._replace(observation=wrong(time_step.observation, jnp))
        return longest_ray.act(params, carry, seen, key, explore)

    def wrong(observation, numpy):
        return numpy.clip(observation * factor, 0.0, 1.0)

    laps = drive(longest_ray._replace(act=act), None, RaceConfig(), tracks, keeps_steps=True)
    driven = laps.driven
    return laps._replace(driven=driven._replace(observation=wrong(driven.observation, np)))


@pytest.fixture(scope="module")
def detector(laps):
    driven = (array[:, :USUAL] for array in laps.driven)
    is_lap = laps.lap_time_steps[:USUAL] > 0
    return Detector(make_lap_reference(*driven, laps.steps[:USUAL], is_lap))


def statistics(laps, detector, cars: range) -> LapStatistics:
    channels = np.concatenate(laps.driven[:2], axis=2)
    steps = [settled(channels[: laps.steps[car], car]) for car in cars]
    return lap_statistics(steps, detector.reference.edges)


def windows(pool: LapStatistics, count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        chosen = rng.choice(len(pool.mean), WINDOW_LAPS, replace=False)
        yield LapStatistics(*(array[chosen] for array in pool))


def test_unchanged_driving_on_other_tracks_raises_no_alarm_in_600_windows(laps, detector):
    pool = statistics(laps, detector, range(USUAL, USUAL + FRESH))
    excess = [
        max(finding.value / finding.threshold for finding in detector.examine(window))
        for window in windows(pool, 600)
    ]
    assert max(excess) < 1.0
    assert max(excess) > 0.3  # the thresholds are no higher than they must be


def test_every_window_of_ten_laps_shows_a_sensor_that_is_ten_percent_off(laps, detector):
    pool = statistics(laps, detector, range(USUAL + FRESH, USUAL + FRESH + BIASED))
    for window in windows(pool, 20):
        found = {finding.test for finding in detector.examine(window) if finding.is_drift}
        assert found == {"psi", "ks", "energy"}
        assert np.abs(detector.shifts(window))[:5].max() > 3.0


def test_a_constant_channel_is_no_drift_because_of_rounding(detector):
    assert (detector.psi_threshold >= 0.4).all()
    usual = detector.reference.laps
    throttle = usual.mean.shape[1] - 1
    assert (usual.mean[:, throttle] == 1.0).all()  # this driver never brakes
    window = LapStatistics(*(array[:WINDOW_LAPS].copy() for array in usual))
    before = detector.examine(window)
    window.mean[:, throttle] -= 1e-4
    for one, other in zip(before, detector.examine(window), strict=True):
        assert other.value == pytest.approx(one.value, abs=0.01)
