"""Cars on the integer grid follow the formulas of their dynamics."""

import numpy as np
import pytest

from rlcar.sim.backend import make_backend
from rlcar.sim.fixed import COSINE, floor_divide, floor_sqrt, quantise_action
from rlcar.sim.motion import (
    GRIP_BITS,
    WHEELBASE_PX,
    Controls,
    Pose,
    curvature_table,
    drive_classic,
    drive_single_track,
    grip_units,
)

NUMPY = make_backend(np)
TURN = 1 << 22


def _controls(steering, throttle):
    return Controls(
        *(quantise_action(NUMPY, np.array([one], np.float32)) for one in (steering, throttle))
    )


def _drive(steps, steering, throttle, speed=0.0, heading_deg=0.0, x=400.0, y=300.0, grip=None):
    """Returns x, y (up), speed and heading_deg after each step, `[T, 4]`; a bicycle with `grip`."""
    pose = Pose(
        *(
            np.array([round(value)], np.int32)
            for value in (x * 4096, y * 4096, speed * 65536, heading_deg / 360 * TURN)
        )
    )
    controls = _controls(steering, throttle)
    rows = []
    for _ in range(steps):
        if grip is None:
            pose = drive_classic(NUMPY, COSINE, pose, controls)
        else:
            units = np.array([grip_units(grip)], np.int32)
            tables = (COSINE, curvature_table())
            pose = drive_single_track(NUMPY, tables, 8 << 16, pose, controls, units)
        scales = (1 / 4096, 1 / 4096, 1 / 65536, 360 / TURN)
        rows.append([float(p[0]) * scale for p, scale in zip(pose, scales, strict=True)])
    return np.array(rows)


def test_a_car_that_does_not_steer_keeps_its_heading():
    assert (_drive(50, 0.0, 1.0, heading_deg=45.0)[:, 3] == 45.0).all()


def test_a_coasting_car_slows_by_one_percent_a_step():
    speed = _drive(100, 0.0, 0.0, speed=4.0)[:, 2]
    np.testing.assert_allclose(speed, 4.0 * 0.99 ** np.arange(1, 101), atol=2e-3)


def test_full_throttle_follows_the_geometric_series_up_to_the_top_speed():
    speed = _drive(60, 0.0, 1.0)[:, 2]
    series = 20.0 * (1 - 0.99 ** np.arange(1, 61))
    np.testing.assert_allclose(speed, np.minimum(series, 5.0), atol=1e-3)
    assert speed[-1] == 5.0


def test_a_car_cannot_drive_backwards():
    rows = _drive(30, 0.0, -1.0, speed=1.0)
    assert rows[-1, 2] == 0.0
    assert rows[-1, 0] == rows[10, 0]


def test_full_steering_turns_five_degrees_a_step_and_seventy_two_steps_are_a_circle():
    rows = _drive(72, 1.0, 1.0, speed=5.0)
    off_deg = (rows[:, 3] - 5.0 * np.arange(1, 73) + 180) % 360 - 180
    np.testing.assert_allclose(off_deg, 0, atol=2e-3)
    # A polygon of 72 sides of 5 px has the circumscribed radius 2.5 / sin(2.5 deg).
    points = rows[:, :2]
    radius = np.hypot(*(points - points.mean(axis=0)).T)
    np.testing.assert_allclose(radius, 2.5 / np.sin(np.deg2rad(2.5)), atol=0.02)
    np.testing.assert_allclose(points[-1], (400, 300), atol=0.05)


def test_heading_ninety_points_up():
    rows = _drive(10, 0.0, 1.0, heading_deg=90.0)
    assert rows[-1, 0] == 400.0
    assert rows[-1, 1] > 305.0


def test_steering_takes_effect_before_the_move():
    row = _drive(1, 1.0, 0.0, speed=4.0)[0]
    assert row[1] - 300 == pytest.approx(3.96 * np.sin(np.deg2rad(5)), abs=1e-3)


def test_positions_stop_at_the_border_of_the_world():
    assert _drive(20, 0.0, 1.0, speed=5.0, x=795.0)[-1, 0] == 800.0
    assert _drive(20, 0.0, 1.0, speed=5.0, heading_deg=270.0, y=3.0)[-1, 1] == 0.0


def test_a_thousand_steps_drift_less_than_a_fifth_of_a_pixel_from_float64():
    rng = np.random.default_rng(0)
    steering = rng.uniform(-1, 1, 999).astype(np.float32)
    pose = Pose(*(np.array([v], np.int32) for v in (400 * 4096, 300 * 4096, 0, 0)))
    x, y, speed, heading = 400.0, 300.0, 0.0, 0.0
    for turn in steering:
        pose = drive_classic(NUMPY, COSINE, pose, _controls(turn, 1 / 64))
        speed = np.clip(speed + 0.2 / 64 - 0.01 * speed, 0, 5)
        heading += 5 * float(turn)
        x += speed * np.cos(np.deg2rad(heading))
        y += speed * np.sin(np.deg2rad(heading))
    assert abs(pose[0][0] / 4096 - x) < 0.2
    assert abs(pose[1][0] / 4096 - y) < 0.2


def test_actions_are_clipped_and_a_nan_is_zero():
    action = np.array([np.nan, np.inf, -np.inf, 3.0, -1.0, 0.5], np.float32)
    np.testing.assert_array_equal(
        quantise_action(NUMPY, action), [0, 16384, -16384, 16384, -16384, 8192]
    )


def test_guessed_quotients_and_roots_are_corrected_to_the_exact_ones():
    rng = np.random.default_rng(0)
    denominator = rng.integers(1, 1 << 24, 200_000).astype(np.int32)
    quotient = rng.integers(0, 1 << 20, 200_000)
    rest = rng.integers(-1, 2, 200_000)
    numerator = np.clip(quotient * denominator.astype(np.int64) + rest, 0, 2**31 - 2**24 - 1)
    numerator = numerator.astype(np.int32)
    is_small = numerator // denominator < 1 << 20
    np.testing.assert_array_equal(
        floor_divide(NUMPY, numerator, denominator)[is_small],
        (numerator // denominator)[is_small],
    )
    roots = np.arange(1 << 15)
    for value in (roots**2, roots**2 + 2 * roots, np.maximum(roots**2 - 1, 0)):
        exact = np.array([int(np.floor(np.sqrt(float(v)))) for v in value])
        np.testing.assert_array_equal(floor_sqrt(NUMPY, value.astype(np.int32)), exact)


def test_a_slow_single_track_car_drives_the_circle_of_its_wheelbase():
    steps = 400
    rows = _drive(steps, 1.0, 0.01, speed=1.0, grip=0.5)
    assert rows[-1, 2] == pytest.approx(0.2, abs=0.05)  # drag balances a hundredth of the throttle
    radius_px = WHEELBASE_PX / np.tan(np.deg2rad(30))
    turned_rad = np.diff(np.unwrap(np.deg2rad(rows[:, 3])))
    np.testing.assert_allclose(rows[1:, 2] / turned_rad, radius_px, rtol=0.01)


@pytest.mark.parametrize("grip", [0.25, 0.5])
def test_past_its_grip_a_single_track_car_understeers(grip):
    rows = _drive(30, -1.0, 0.5, speed=7.0, grip=grip)
    turned_rad = np.diff(np.unwrap(np.deg2rad(rows[:, 3])))
    np.testing.assert_allclose(-turned_rad * rows[1:, 2], grip, rtol=2e-3)
    # A slower car has enough grip, so it turns more tightly.
    slow = _drive(2, -1.0, 0.0, speed=2.0, grip=grip)
    assert abs(np.diff(np.deg2rad(slow[:, 3]))[0]) / slow[0, 2] > 3 * abs(turned_rad[0]) / 7.0


def test_a_single_track_car_brakes_twice_as_hard_as_it_accelerates():
    speed = _drive(2, 0.0, -1.0, speed=6.0, grip=0.5)[:, 2]
    assert speed[0] == pytest.approx(6.0 - 0.4 - 0.06, abs=1e-3)
    faster = _drive(200, 0.0, 1.0, x=0.0, grip=0.5)[:, 2]
    assert faster[0] == pytest.approx(0.2, abs=1e-4)
    assert faster[-1] == 8.0


def test_the_strongest_grip_stays_within_the_integers():
    assert grip_units(0.7) == pytest.approx(0.7 / (2 * np.pi) * 2**GRIP_BITS, abs=1)
    assert grip_units(0.7) + (8 << 10) < 2**31
