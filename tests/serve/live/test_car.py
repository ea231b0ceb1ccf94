"""The page's car drives the same race as the simulator."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.sim import make_race
from rlcar.track import make_pool
from serve.live.car import Car, open_course

SEEDS = range(10_000, 10_004)


@pytest.fixture(scope="module")
def course():
    return open_course(make_race_config("classic"), SEEDS)


def _wheel(step):
    return np.float32([0.1 * np.sin(step / 7), 1.0])


def test_it_is_the_race_of_the_simulator_bit_for_bit(course):
    car = Car(course)
    car.begin(10_002, race_seed=5)
    race = make_race(course.config, make_pool([10_002], course.config.track), np, "fixed")
    state, told = race.reset(np.zeros(1, np.int32), 5)
    total = 0.0
    while not car.is_ended:
        np.testing.assert_array_equal(car.observation, told.observation[0])
        action = _wheel(car.steps)
        state, told, events = race.step(state, action[None])
        total += float(told.reward[0])
        car.drive(action)
    assert told.is_last[0]
    assert car.is_crash == bool(events.is_crash[0])
    view = race.view(state)
    assert car.pose.x_px == float(view.x_px[0])
    assert car.pose.progress == float(view.progress[0])
    assert car.reward_sum == pytest.approx(total)


def test_what_follows_from_actions_is_what_happens_when_they_are_taken(course):
    car = Car(course)
    for step in range(20):
        car.drive(_wheel(step))
    actions = np.stack([_wheel(step) for step in range(20, 30)])
    pose = car.pose
    told = car.preview(actions)
    assert car.pose == pose
    for row, action in zip(told, actions, strict=True):
        car.drive(action)
        np.testing.assert_array_equal(row[:3], np.float32(car.pose[:3]))
        np.testing.assert_array_equal(row[3:], car.observation[:5])


def test_a_preview_is_empty_after_the_end_of_the_episode(course):
    car = Car(course)
    told = car.preview(np.tile(np.float32([1.0, 1.0]), (200, 1)))
    ends = np.flatnonzero(np.isnan(told[:, 0]))
    assert 0 < ends[0] < 200
    assert np.isnan(told[ends[0] :]).all()


def test_an_ended_car_stands_still(course):
    car = Car(course)
    while not car.is_ended:
        car.drive(np.float32([1.0, 1.0]))
    where, steps = car.pose, car.steps
    car.drive(np.float32([1.0, 1.0]))
    assert (car.pose, car.steps) == (where, steps)


def test_the_second_car_of_the_grand_prix_is_seen():
    car = Car(open_course(make_race_config("grand-prix"), range(10_000, 10_001)))
    first = car.rival
    for _ in range(5):
        car.drive(np.float32([0.0, 0.0]))
    assert first is not None
    assert car.rival != first
    assert 0.0 < car.rival[0] < 800.0
