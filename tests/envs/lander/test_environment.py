"""Episodes of the lander: determinism, rewards, ends, and that NumPy and JAX agree."""

import math

import jax
import numpy as np
import pytest

from rlcar.envs.lander import LanderSettings
from rlcar.envs.lander.bounds import infeasibility
from rlcar.envs.lander.dynamics import Motion, throttle_action
from rlcar.envs.lander.ending import LEG_M, REASONS, bounds_of, judge
from rlcar.envs.lander.environment import make_lander, make_world
from rlcar.envs.lander.guidance import guidance_action
from rlcar.envs.lander.guidance_field import target_velocity
from rlcar.envs.lander.observation import entries_of, motion_of
from rlcar.envs.lander.rewards import (
    approach_quality,
    approach_reward,
    contact_reward,
    landing_reward,
)
from rlcar.envs.lander.settings import SCENARIOS
from rlcar.envs.lander.terrain import Ground
from rlcar.envs.lander.vectors import Quaternion, Vector

HOVER = float(throttle_action(np, np.float64(1_000.0 * 1.62254 / 4_500.0)))


def _guided(state, observation):
    del state
    return guidance_action(np, motion_of(np, observation))


def _constant(*action):
    return lambda state, observation: np.tile(np.float32(action), (len(observation), 1))


@pytest.mark.parametrize("scenario", ["stage-1", "stage-2"])
def test_the_guidance_law_lands_from_the_observation_alone(fly_with, scenario):
    reward, reasons, figures = fly_with(_guided, scenario=scenario)
    assert (reasons == "landed").all()
    assert (reward > 950).all()
    assert reward.mean() > 1_100
    assert (figures["is_soft"] == (figures["touchdown_speed_m_s"] < 2.0)).all()
    assert (figures["distance_m"] < 20.0).all()
    assert (figures["fuel_fraction"] > 0.7).all()


@pytest.mark.long
@pytest.mark.parametrize("scenario", ["stage-3", "stage-4", "stage-5"])
def test_the_guidance_law_lands_from_far_away(fly_with, scenario):
    _, reasons, figures = fly_with(_guided, landers=32, scenario=scenario)
    assert (reasons == "landed").mean() > 0.9
    assert (figures["fuel_fraction"] > 0.3).mean() > 0.9


def test_a_fall_is_a_failure_of_its_speed(fly_with):
    reward, reasons, figures = fly_with(_constant(-1, 0, 0, 0, 0, 0), scenario="stage-1")
    assert set(reasons) == {"too_fast"}
    assert (reward < -500).all()
    assert (figures["touchdown_speed_m_s"] > 8.0).all()
    assert (figures["fuel_fraction"] == 1.0).all()
    assert (figures["smoothness"] == 0.0).all()


def test_full_throttle_leaves_the_bounds(fly_with):
    _, reasons, _ = fly_with(_constant(1, 0, 0, 0, 0, 0), scenario="stage-1")
    assert set(reasons) == {"out_of_bounds"}


def test_hovering_earns_nothing_and_runs_out_of_time(fly_with):
    reward, reasons, _ = fly_with(
        _constant(HOVER, 0, 0, 0, 0, 0),
        start_tilt_max_deg=0.0,
        start_descent_max_m_s=0.0,
        start_drift_max_m_s=0.0,
        time_limit_steps=100,
    )
    assert set(reasons) == {"time_limit"}
    assert reward == pytest.approx(np.full(8, -1_000.0), abs=20.0)


def test_a_metre_is_paid_once_and_at_most_five_for_a_step():
    gain = np.array([-3.0, 0.0, 1.0, 50.0])
    assert approach_reward(np, gain, np.float64(100.0), np.float64(0.5)) == pytest.approx(
        [0.0, 0.0, 2.5, 5.0]
    )


def test_a_gentle_landing_is_worth_more_than_a_hard_one_and_any_more_than_a_failure():
    speed = np.array([0.5, 1.0, 2.0, 2.9])
    assert landing_reward(np, speed, np.zeros(4)) == pytest.approx([1_000, 1_000, 500, 50])
    assert landing_reward(np, speed[:1], np.array([50.0])) == pytest.approx([1_100])


def test_a_failure_costs_less_the_closer_it_is_to_a_landing():
    speed, distance = np.array([0.0, 3.0, 9.0, 3.0]), np.array([0.0, 0.0, 0.0, 40.0])
    assert contact_reward(np, speed, distance) == pytest.approx([0, -500, -750, -750])


def _quality(velocity, quaternion=(1.0, 0.0, 0.0, 0.0), rates=(0.0, 0.0, 0.0)):
    one = [np.array([number]) for number in (0.0, 100.0, *velocity, *quaternion, *rates)]
    position = Vector(one[0], one[0], one[1])
    motion = Motion(position, Vector(*one[2:5]), Quaternion(*one[5:9]), Vector(*one[9:12]), one[0])
    return float(approach_quality(np, motion, np.array([100.0]))[0])


def _turned(axis, angle):
    quaternion = [math.cos(0.5 * angle), 0.0, 0.0, 0.0]
    quaternion[1 + axis] = math.sin(0.5 * angle)
    return quaternion


def test_the_quality_falls_with_each_deviation():
    # The target of the descent is sqrt(1 + 2 * 0.8 * 100) = 12.7 m/s, and halves at 1 + 3.2 m/s.
    target = (0.0, 0.0, -math.sqrt(161.0))
    half = 1.0 + 0.25 * math.sqrt(161.0)
    assert _quality(target) == pytest.approx(1.0, abs=1e-3)
    for sign in (-1.0, 1.0):
        assert _quality((0.0, 0.0, target[2] + sign * half)) == pytest.approx(0.5, abs=1e-3)
    for axis in range(3):
        assert _quality(target, _turned(axis, 0.2)) == pytest.approx(0.5, abs=1e-3)
        rates = [0.0, 0.0, 0.0]
        rates[axis] = -0.15
        assert _quality(target, rates=rates) == pytest.approx(0.5, abs=1e-3)


def test_the_quality_is_best_for_a_tilt_against_a_drift():
    # A rotation about y tilts the thrust towards x.
    drifting = (3.0, 0.0, -math.sqrt(161.0))
    against, upright, along = (_quality(drifting, _turned(1, angle)) for angle in (-0.35, 0, 0.35))
    assert against > 1.5 * upright
    assert upright > 1.3 * along
    half = 1.0 + 0.25 * math.sqrt(161.0)
    assert against < 1.0 / (1.0 + (3.0 / half) ** 2)


def _judged(x_m=0.0, z_m=1.5, speed=1.0, tilt_deg=0.0, rate=0.0, is_late=False):
    settings = LanderSettings()
    world = make_world(settings, np)
    half = np.radians(tilt_deg) / 2
    one = [np.array([number], np.float32) for number in (x_m, z_m, -speed, np.cos(half))]
    zero = np.zeros(1, np.float32)
    motion = Motion(
        Vector(one[0], zero, one[1]),
        Vector(zero, zero, one[2]),
        Quaternion(one[3], np.array([np.sin(half)], np.float32), zero, zero),
        Vector(zero, zero, np.array([rate], np.float32)),
        zero,
    )
    ground = Ground(world.terrain, np.zeros(1, np.int32))
    ending = judge(np, ground, motion, np.array([is_late]), bounds_of(world.mission))
    return REASONS[ending.reason[0]] if ending.is_ended[0] else None


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        ({}, "landed"),
        ({"z_m": 1.6}, None),
        ({"z_m": 1.6, "is_late": True}, "time_limit"),
        ({"is_late": True}, "landed"),
        ({"speed": 3.0}, "too_fast"),
        ({"speed": 2.9}, "landed"),
        ({"tilt_deg": 14.0}, "landed"),
        ({"tilt_deg": 16.0}, "tilted"),
        ({"rate": 0.6}, "tilted"),
        ({"x_m": 19.0}, "landed"),
        ({"x_m": 20.5}, "missed_pad"),
        ({"x_m": 500.0, "z_m": 200.0}, "out_of_bounds"),
        ({"z_m": 500.0}, "out_of_bounds"),
    ],
)
def test_the_verdict(situation, reason):
    assert _judged(**situation) == reason


def _steps(lander, index, seed, steps=12):
    state, time_step = lander.reset(np.asarray(index, np.int32), np.asarray(seed, np.int32))
    results = [time_step]
    for step in range(steps):
        action = np.sin(np.arange(6) + step)[None].repeat(len(index), 0).astype(np.float32)
        state, time_step, _ = lander.step(state, action)
        results.append(time_step)
    return [np.stack(parts) for parts in zip(*(step[:5] for step in results), strict=True)]


def test_episodes_do_not_depend_on_the_number_of_landers():
    lander = make_lander(LanderSettings(time_limit_steps=5), np)
    together = _steps(lander, range(7), 3)
    alone = _steps(lander, [4], [3])
    for many, one in zip(together, alone, strict=True):
        assert np.array_equal(many[:, 4:5], one)


def test_other_seeds_indices_and_episodes_start_elsewhere():
    lander = make_lander(LanderSettings(time_limit_steps=1), np)
    first = _steps(lander, [0, 1], [0, 0])[0]
    starts = [*first[[0, 2, 4], 0], first[0, 1], _steps(lander, [0], [1])[0][0, 0]]
    assert len({start.tobytes() for start in starts}) == 5


def test_the_call_after_the_last_step_starts_the_next_episode():
    observation, reward, is_first, is_last, is_terminal = _steps(
        make_lander(LanderSettings(time_limit_steps=3), np), [0], [0], steps=8
    )
    assert np.flatnonzero(is_first[:, 0]).tolist() == [0, 4, 8]
    assert np.flatnonzero(is_last[:, 0]).tolist() == [3, 7]
    assert np.array_equal(is_last, is_terminal)
    assert (reward[[0, 4, 8]] == 0).all()
    assert (reward[[3, 7]] < -900).all()
    assert not np.array_equal(observation[0], observation[4])


def test_numpy_and_jax_agree():
    settings = LanderSettings(scenario="stage-3", time_limit_steps=8)
    ours = _steps(make_lander(settings, np), range(16), 0)
    lander = make_lander(settings)
    compiled = lander._replace(reset=jax.jit(lander.reset), step=jax.jit(lander.step))
    theirs = _steps(compiled, range(16), 0)
    assert np.abs(ours[0] - theirs[0]).max() < 2e-5
    assert np.abs(ours[1] - theirs[1]).max() < 2e-3
    for one, other in zip(ours[2:], theirs[2:], strict=True):
        assert np.array_equal(one, other)


def test_the_observation_describes_the_state():
    lander = make_lander(LanderSettings(scenario="stage-5", lidar_rays=3), np)
    state, time_step = lander.reset(np.arange(50), np.int32(0))
    observation, action = entries_of(LanderSettings(lidar_rays=3))
    assert time_step.observation.shape == (50, len(observation)) == (50, 22)
    assert lander.spec.action_size == len(action) == 6
    assert (time_step.observation >= [entry.low for entry in observation]).all()
    assert (time_step.observation <= [entry.high for entry in observation]).all()
    read = motion_of(np, time_step.observation)
    for ours, theirs in zip(jax.tree.leaves(read), jax.tree.leaves(state.motion), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_the_observation_contains_the_error_of_the_velocity():
    lander = make_lander(LanderSettings(scenario="stage-3"), np)
    state, time_step = lander.reset(np.arange(20), np.int32(0))
    position, velocity = state.motion.position_m, state.motion.velocity_m_s
    target = target_velocity(np, position, position.z - LEG_M)
    for axis in range(3):
        entry = time_step.observation[:, 16 + axis]
        error = np.sign(entry) * np.expm1(4.0 * np.abs(entry))
        assert error == pytest.approx(velocity[axis] - target[axis], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_shipped_stage_is_feasible(scenario):
    assert infeasibility(LanderSettings(scenario=scenario)) is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scenario": "stage-5", "fuel_kg": 5.0}, "fuel_kg = 5: from 500 m, .* at least 13.9 kg"),
        (
            {"start_altitude_min_m": 1e5, "start_altitude_max_m": 1e5},
            r"time_limit_steps = 600 \(60.0 s\): from 100000 m, .* take 2[89]\d.\d s",
        ),
        (
            {"start_offset_min_m": 5e4, "start_offset_max_m": 5e4},
            "no lander can land within time_limit_steps = 600",
        ),
    ],
)
def test_an_impossible_mission_is_refused_with_the_numbers(settings, text):
    sentence = infeasibility(LanderSettings(**settings))
    assert sentence is not None
    import re

    assert re.search(text, sentence), sentence


def test_no_landing_beats_the_bounds(fly_with):
    from rlcar.envs.lander.bounds import bounds_of as least
    from rlcar.envs.lander.settings import mission_of

    settings = LanderSettings(start_altitude_min_m=60.0, start_altitude_max_m=60.0)
    _, _, figures = fly_with(_guided, start_altitude_min_m=60.0, start_altitude_max_m=60.0)
    assert (100.0 * (1 - figures["fuel_fraction"]) > least(mission_of(settings)).fuel_kg).all()
