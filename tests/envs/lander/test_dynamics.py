"""The lander's motion against closed forms, one action dimension at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.envs.lander import dynamics
from rlcar.envs.lander.dynamics import Motion, command_of, fly
from rlcar.envs.lander.vectors import Quaternion, Vector, rotate, rotate_back, up_axis

OFF = (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
FULL = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
GRAVITY = 4.902799e12 / 1_738_300.0**2


def _vector(*numbers):
    return Vector(*(np.array([number], np.float32) for number in numbers))


def _at_rest(fuel_kg=100.0, height_m=0.0):
    upright = Quaternion(*_vector(1.0, 0.0, 0.0), np.zeros(1, np.float32))
    fuel = np.array([fuel_kg], np.float32)
    return Motion(_vector(0, 0, height_m), _vector(0, 0, 0), upright, _vector(0, 0, 0), fuel)


def _flown(motion, action, steps=1):
    for _ in range(steps):
        motion = fly(np, motion, command_of(np, np.array([action], np.float32)))
    return motion


def test_a_free_fall_of_ten_seconds_has_the_closed_form():
    motion = _flown(_at_rest(), OFF, 100)
    assert motion.velocity_m_s.z[0] == pytest.approx(-10 * GRAVITY, abs=1e-3)
    assert motion.position_m.z[0] == pytest.approx(-50 * GRAVITY, abs=1e-2)
    assert motion.fuel_kg[0] == 100.0


def test_gravity_falls_with_the_square_of_the_distance_to_the_centre():
    fall = -_flown(_at_rest(height_m=1_500.0), OFF).velocity_m_s.z[0] / 0.1
    assert fall == pytest.approx(4.902799e12 / 1_739_800.0**2, rel=1e-5)


def test_a_free_fall_keeps_its_energy():
    start = _at_rest(height_m=1_000.0)
    end = _flown(start, OFF, 200)
    gained = 0.5 * float(end.velocity_m_s.z[0]) ** 2
    middle = GRAVITY * (1 - (1_000.0 + float(end.position_m.z[0])) / 1_738_300.0)
    assert gained == pytest.approx(middle * (1_000.0 - float(end.position_m.z[0])), rel=1e-4)


def test_full_throttle_obeys_the_rocket_equation():
    motion = _flown(_at_rest(), FULL, 100)
    exhaust = 300.0 * 9.80665
    burnt = 10 * 4_500.0 / exhaust
    assert motion.fuel_kg[0] == pytest.approx(100.0 - burnt, abs=1e-3)
    wanted = exhaust * math.log(1_000.0 / (1_000.0 - burnt)) - 10 * GRAVITY
    assert motion.velocity_m_s.z[0] == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize(
    ("entry", "axis", "rate", "sign"), [(1, "x", "y", -1.0), (2, "y", "x", 1.0)]
)
def test_a_gimbal_pushes_sideways_and_turns_the_lander(entry, axis, rate, sign):
    action = list(FULL)
    action[entry] = 1.0
    motion = _flown(_at_rest(), action)
    side = 4_500.0 * math.sin(0.025)
    velocity = getattr(motion.velocity_m_s, axis)[0]
    assert velocity == pytest.approx(0.1 * side / 1_000.0, rel=3e-3)
    turned = getattr(motion.rates_rad_s, rate)[0]
    assert turned == pytest.approx(sign * 0.1 * 0.8 * side / 2_000.0, rel=1e-4)


@pytest.mark.parametrize(
    ("entry", "axis", "wanted"), [(3, "x", 0.0075), (4, "y", 0.0075), (5, "z", 0.005)]
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_torque_turns_about_its_own_axis_alone(entry, axis, wanted, sign):
    action = list(OFF)
    action[entry] = sign
    rates = _flown(_at_rest(), action).rates_rad_s
    assert getattr(rates, axis)[0] == pytest.approx(sign * wanted, rel=1e-5)
    assert sum(abs(float(part[0])) > 0 for part in rates) == 1


def test_a_lander_that_turns_about_x_tilts_towards_minus_y():
    action = list(OFF)
    action[3] = 1.0
    up = up_axis(_flown(_at_rest(), action, 20).attitude)
    assert up.y[0] == pytest.approx(-math.sin(0.5 * 0.075 * 2.0**2), rel=1e-4)
    assert up.x[0] == 0.0


def test_the_last_fuel_gives_its_whole_impulse_and_no_more():
    motion = _flown(_at_rest(fuel_kg=0.05), FULL, 3)
    wanted = 300.0 * 9.80665 * math.log(900.05 / 900.0) - 0.3 * GRAVITY
    assert motion.fuel_kg[0] == 0.0
    assert motion.velocity_m_s.z[0] == pytest.approx(wanted, abs=1e-4)


def test_a_nan_counts_as_zero_and_large_numbers_are_clipped():
    command = command_of(np, np.array([[np.nan, np.inf, -np.inf, 5.0, -5.0, np.nan]], np.float32))
    assert command.throttle[0] == np.float32(dynamics.HOVER_THROTTLE)
    assert (command.gimbal_x_rad[0], command.gimbal_y_rad[0]) == pytest.approx((0.025, -0.025))
    assert [float(part[0]) for part in command.torque_n_m] == [150.0, -150.0, 0.0]


def test_the_throttle_is_off_hovers_and_is_full_at_minus_one_zero_and_one():
    action = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    hover = 950.0 * GRAVITY / 4_500.0
    wanted = [0.0, hover / 2, hover, 1.5 * hover + (1 - 2 * hover) / 4, 1.0]
    throttle = dynamics.throttle_of(np, action)
    assert throttle == pytest.approx(wanted, abs=1e-12)
    assert dynamics.throttle_action(np, throttle) == pytest.approx(action, abs=1e-12)


def test_action_zero_keeps_the_height_with_half_a_tank():
    motion = _flown(_at_rest(fuel_kg=50.0), (0.0,) * 6, 10)
    # It gains a little, because it burns half a kilogram meanwhile.
    assert 0.0 < motion.velocity_m_s.z[0] < 1e-3


_NUMBER = st.floats(-2.0, 2.0, width=32) | st.just(math.nan) | st.just(math.inf)


@settings(max_examples=30, deadline=None)
@given(
    action=st.lists(_NUMBER, min_size=6, max_size=6),
    rates=st.lists(st.floats(-1.0, 1.0, width=32), min_size=3, max_size=3),
    fuel_kg=st.floats(0.0, 100.0, width=32),
)
def test_every_action_leaves_a_finite_state_and_a_unit_quaternion(action, rates, fuel_kg):
    motion = _at_rest(fuel_kg)._replace(rates_rad_s=_vector(*rates))
    motion = _flown(motion, action, 10)
    numbers = np.array([part for vector in motion[:4] for part in vector])
    assert np.isfinite(numbers).all()
    assert 0.0 <= motion.fuel_kg[0] <= np.float32(fuel_kg)
    assert sum(float(part[0]) ** 2 for part in motion.attitude) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(rates=st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
def test_without_torque_the_angular_momentum_stays_in_the_world(rates):
    inertia = dynamics.INERTIA_KG_M2

    def momentum(motion):
        parts = (i * rate for i, rate in zip(inertia, motion.rates_rad_s, strict=True))
        return np.array([part[0] for part in rotate(motion.attitude, Vector(*parts))])

    start = _at_rest()._replace(rates_rad_s=_vector(*rates))
    assert momentum(_flown(start, OFF, 20)) == pytest.approx(momentum(start), abs=0.2)


def test_a_vector_returns_from_the_body_to_the_world():
    half = math.sqrt(0.5)
    quarter_turn_about_z = Quaternion(*_vector(half, 0, 0), np.array([half], np.float32))
    turned = rotate(quarter_turn_about_z, _vector(1, 0, 0))
    assert [float(part[0]) for part in turned] == pytest.approx([0, 1, 0], abs=1e-6)
    back = rotate_back(quarter_turn_about_z, turned)
    assert [float(part[0]) for part in back] == pytest.approx([1, 0, 0], abs=1e-6)
