"""How the steps of cars become laps: by episode, or by length, and in the order of their starts."""

import numpy as np
import pytest

from rlcar.evaluation.lap_reference import SETTLING_STEPS, make_lap_reference
from serve.observing.drift_laps import MOST_LAPS, LapCutter, ServedStep, WatchedCars

LONGEST = 50


@pytest.fixture
def cutter():
    """Of one observed number and one action; the longest lap of the reference has 50 steps."""
    rng = np.random.default_rng(0)
    steps = np.full(30, LONGEST)
    observation = rng.random((LONGEST, 30, 1))
    reward = np.zeros((LONGEST, 30))
    return LapCutter(make_lap_reference(observation, observation, reward, steps, steps > 0))


def drive(cutter, cars, values, *, begins=False, ends=False):
    """Drives one step for each value, which is all that the cars observe and do."""
    for index, value in enumerate(values):
        seen = np.full((cars.cars, 1), value, np.float32)
        is_first = np.full(cars.cars, begins and index == 0)
        cutter.add(cars, ServedStep(seen, is_first, seen, None, None))
    if ends:
        is_over = np.ones(cars.cars, bool)
        cutter.add(cars, ServedStep(seen, ~is_over, seen, is_over, None))


def test_a_lap_is_an_episode_without_its_start(cutter):
    cars = WatchedCars(1)
    drive(cutter, cars, [0.9] * SETTLING_STEPS + [0.2] * 10, begins=True)
    assert cutter.take(0.0) == []
    drive(cutter, cars, [0.5], begins=True)
    (lap,) = cutter.take(0.0)
    np.testing.assert_allclose(lap.mean, [[0.2, 0.2]], atol=1e-6)


def test_a_car_that_never_reports_an_end_is_cut_by_length(cutter):
    cars = WatchedCars(1)
    drive(cutter, cars, [0.9] * LONGEST)  # the server cannot know when this lap began
    assert cutter.take(0.0) == []
    drive(cutter, cars, [0.2] * LONGEST)
    drive(cutter, cars, [0.7])
    (lap,) = cutter.take(0.0)
    np.testing.assert_allclose(lap.mean, [[0.2, 0.2]], atol=1e-6)


def test_the_last_observation_of_an_episode_is_no_step(cutter):
    cars = WatchedCars(2)
    drive(cutter, cars, [0.3] * 20, begins=True, ends=True)
    assert [lap.mean[0, 0] for lap in cutter.take(0.0)] == pytest.approx([0.3, 0.3])
    drive(cutter, cars, [0.3] * 5, begins=True, ends=True)
    assert cutter.take(0.0) == []  # too few steps


def test_a_quick_lap_waits_for_one_that_began_before_it(cutter):
    slow, quick = WatchedCars(1), WatchedCars(1)
    drive(cutter, slow, [0.1] * 10, begins=True)
    drive(cutter, quick, [0.9] * 10, begins=True, ends=True)
    assert cutter.take(0.0) == []
    drive(cutter, slow, [0.1], ends=True)
    assert [lap.mean[0, 0] for lap in cutter.take(0.0)] == pytest.approx([0.1, 0.9])


def test_a_lap_that_is_left_out_holds_back_no_other(cutter):
    gone, quick = WatchedCars(1), WatchedCars(1)
    drive(cutter, gone, [0.1] * 10, begins=True)
    drive(cutter, quick, [0.9] * 10, begins=True, ends=True)
    cutter.leave(gone)
    assert [lap.mean[0, 0] for lap in cutter.take(0.0)] == pytest.approx([0.9])


def test_a_lap_that_takes_too_long_is_left_out_and_holds_back_no_other(cutter):
    assert cutter.longest_s == 3 * LONGEST / 20
    slow, quick = WatchedCars(1), WatchedCars(1)
    drive(cutter, slow, [0.1] * 2, begins=True)
    drive(cutter, quick, [0.9] * 10, begins=True, ends=True)
    assert cutter.take(cutter.longest_s) == []
    assert [lap.mean[0, 0] for lap in cutter.take(cutter.longest_s + 0.1)] == pytest.approx([0.9])
    drive(cutter, slow, [0.1] * 20, ends=True)
    assert cutter.take(cutter.longest_s + 0.2) == []


def test_the_number_of_laps_that_wait_is_bounded(cutter):
    slow, quick = WatchedCars(1), WatchedCars(1)
    drive(cutter, slow, [0.1] * 2, begins=True)
    for _ in range(MOST_LAPS - 1):
        drive(cutter, quick, [0.9] * 8, begins=True, ends=True)
    assert cutter.take(0.0) == []
    drive(cutter, quick, [0.9] * 8, begins=True, ends=True)
    assert len(cutter.take(0.0)) == MOST_LAPS
