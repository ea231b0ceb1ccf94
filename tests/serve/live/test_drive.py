"""The drive, frame by frame, without a clock or a network."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from serve.live.car import open_course
from serve.live.drive import Drive
from serve.live.loaded_policy import StatefulPolicy
from serve.live.manual_control import ManualControl
from serve.live.policy_catalog import open_catalog
from serve.live.wire import BRAKING, ENDED, MANUAL, RUNNING
from tests.serve.served import publish

SEEDS = range(10_000, 10_003)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture(scope="module")
def course():
    return open_course(make_race_config("classic"), SEEDS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "models"
    publish(folder, 1)
    publish(folder, 2)
    return open_catalog(folder, None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def drive(course, clock):
    control = ManualControl(clock)
    control.take("ann", is_connected=True)
    return Drive(course, control)


def _by_hand(drive, steering, throttle):
    drive.is_running = drive.is_manual = True
    drive.manual_control.steer(steering, throttle)


def _until_told(drive, kind, most=4000):
    for _ in range(most):
        told = drive.frame()
        if told is not None and told["kind"] == kind:
            return told
    raise AssertionError(f"nothing was told of a {kind}")


def test_a_stopped_drive_keeps_its_episode(drive):
    _by_hand(drive, 0.0, 1.0)
    for _ in range(20):
        drive.frame()
    drive.is_running = False
    before = drive.tick()
    for _ in range(20):
        drive.frame()
    assert drive.tick().pose == before.pose._replace()
    assert drive.car.steps == 10
    assert not drive.tick().flags & RUNNING


def test_two_frames_are_one_step_and_the_odd_one_is_half_way(drive):
    _by_hand(drive, 0.0, 1.0)
    for _ in range(20):
        drive.frame()
    start = drive.tick().pose
    drive.frame()
    half = drive.tick().pose
    drive.frame()
    end = drive.tick().pose
    assert drive.car.steps == 11
    assert half.x_px == pytest.approx((start.x_px + drive.car.before.x_px) / 2, abs=3.0)
    assert np.hypot(end.x_px - half.x_px, end.y_px - half.y_px) > 0.0


def test_the_car_brakes_without_the_drivers_input(drive, clock):
    _by_hand(drive, 0.0, 1.0)
    for _ in range(40):
        drive.frame()
    assert drive.car.pose.speed_px_per_step > 2.0
    clock.now_s += 1.0
    for _ in range(120):
        drive.frame()
    assert drive.car.pose.speed_px_per_step == 0.0
    assert drive.tick().flags & BRAKING
    assert drive.tick().flags & MANUAL


def test_a_person_who_crashes_tries_the_same_road_again(drive):
    _by_hand(drive, 1.0, 1.0)
    told = _until_told(drive, "episode")
    assert told["is_crash"]
    assert told["driver"] == "by hand"
    assert told["lap_time_steps"] is None
    assert drive.tick().flags & ENDED
    for _ in range(80):
        drive.frame()
    assert (drive.car.track_seed, drive.car.is_ended) == (told["track_seed"], False)
    assert list(drive.rewards) == [pytest.approx(told["reward"], abs=1e-3)]


def test_a_policy_goes_on_to_the_next_road(drive, models):
    drive.set_policy(models.load("1"))
    drive.is_running = True
    told = _until_told(drive, "episode")
    assert told["driver"] == "version 1"
    for _ in range(80):
        drive.frame()
    assert drive.car.track_seed == told["track_seed"] + 1


def test_a_ghost_drives_the_same_road_and_both_results_are_sent(drive, models):
    drive.set_policy(models.load("1"))
    drive.ghost = StatefulPolicy(models.load("2"))
    drive.is_running = True
    drive.begin()
    told = _until_told(drive, "duel")
    assert (told["car"]["driver"], told["ghost"]["driver"]) == ("version 1", "version 2")
    assert told["car"]["track_seed"] == told["ghost"]["track_seed"]
    assert told["ghost"]["steps"] > 0


def test_equal_policies_race_to_the_same_pixel(drive, models):
    drive.set_policy(models.load("2"))
    drive.ghost = StatefulPolicy(models.load("2"))
    drive.is_running = True
    drive.begin()
    for _ in range(60):
        drive.frame()
        assert drive.ghost_car.pose == drive.car.pose


def test_reset_begins_the_same_road_with_nothing_left_of_the_last_drive(drive):
    _by_hand(drive, 0.0, 1.0)
    for _ in range(30):
        drive.frame()
    drive.begin()
    assert (drive.car.steps, drive.car.reward_sum) == (0, 0.0)
    assert drive.car.pose.speed_px_per_step == 0.0


def test_without_a_policy_the_car_rolls_out(drive):
    drive.is_running = True
    for _ in range(10):
        assert drive.frame() is None
    assert drive.car.pose.speed_px_per_step == 0.0
