"""The lander as a Gymnasium environment, alone and as a vector."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlcar.envs import LANDER_ID
from rlcar.envs.lander.gym_env import LanderEnv
from rlcar.envs.lander.vector_env import LanderVectorEnv
from rlcar.errors import ConfigError

OFF = np.array([-1, 0, 0, 0, 0, 0], np.float32)


def test_gymnasiums_own_checker_finds_nothing():
    check_env(gymnasium.make(LANDER_ID, render_mode="rgb_array").unwrapped)


def test_it_is_registered_under_its_name_and_takes_its_settings():
    env = gymnasium.make(LANDER_ID, scenario="stage-3", fuel_kg=50.0)
    assert env.unwrapped.settings.scenario == "stage-3"
    assert env.unwrapped.settings.fuel_kg == 50.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scenario": "stage-9"}, "scenario = 'stage-9': .*'stage-1'"),
        ({"fuel": 5.0}, "unknown setting 'fuel'"),
        ({"fuel_kg": float("nan")}, "fuel_kg = nan: "),
        ({"terrain_points": 3}, "terrain_points = 3: .*greater than or equal to 9"),
        ({"lidar_rays": 65}, "lidar_rays = 65: .*less than or equal to 64"),
        ({"start_altitude_min_m": 90.0}, "start_altitude_min_m = 90 is above .* = 60: swap"),
        ({"start_altitude_min_m": 5.0}, "start_altitude_min_m = 5 is below 20 m"),
        ({"render_mode": "ansi"}, "unknown render_mode 'ansi'"),
    ],
)
def test_a_bad_argument_gets_one_sentence(arguments, text):
    with pytest.raises(ConfigError, match=text) as error:
        LanderEnv(**arguments)
    assert "\n" not in str(error.value)


def test_a_bad_action_gets_one_sentence():
    env = LanderEnv()
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(OFF)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3,\): pass an array of the shape \(6,\)"):
        env.step(OFF[:3])
    with pytest.raises(ValueError, match="contains a NaN"):
        env.step(OFF * np.nan)


def _fall(env, seed):
    observations, reward = [env.reset(seed=seed)[0]], 0.0
    while True:
        observation, gained, is_terminated, is_truncated, info = env.step(OFF)
        observations.append(observation)
        reward += gained
        assert not is_truncated
        if is_terminated:
            return np.array(observations), reward, info


def test_a_seed_determines_an_episode_and_its_end_is_explained():
    env = LanderEnv()
    one, reward, info = _fall(env, 3)
    other, _, _ = _fall(env, 3)
    assert np.array_equal(one, other)
    assert not np.array_equal(one[0], _fall(env, 4)[0][0])
    assert info["reason"] == "too_fast"
    assert info["is_success"] is False
    assert info["fuel_fraction"] == 1.0
    assert reward < -500.0


def test_pictures_have_the_declared_shape_and_follow_the_lander():
    env = LanderEnv("rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert (first.shape, first.dtype) == ((480, 640, 3), np.uint8)
    env.step(OFF)
    assert not np.array_equal(first, env.render())


def _drive(env, steps):
    seen = [env.reset(seed=5)[0]]
    results = []
    for _ in range(steps):
        results.append(env.step(np.tile(OFF, (env.num_envs, 1))))
        seen.append(results[-1][0])
    return seen, results


def test_a_vector_starts_again_in_the_next_step_or_in_the_same_one():
    settings = {"num_envs": 3, "time_limit_steps": 4}
    later, results = _drive(LanderVectorEnv(**settings), 6)
    now, same = _drive(LanderVectorEnv(autoreset_mode="SameStep", **settings), 6)
    assert results[3][2].all()
    assert same[3][2].all()
    assert results[3][4]["reason"].tolist() == ["time_limit"] * 3
    assert results[3][4]["_is_success"].all()
    assert not results[3][4]["is_success"].any()
    assert (results[4][1] == 0).all()
    assert np.array_equal(later[5], now[4])  # the first observations of the second episodes
    assert np.array_equal(np.stack(same[3][4]["final_obs"]), later[4])
    assert np.array_equal(later[6], now[5])


def test_a_lander_of_a_vector_has_its_own_episodes_for_any_number():
    three, _ = _drive(LanderVectorEnv(num_envs=3, time_limit_steps=4), 6)
    two, _ = _drive(LanderVectorEnv(num_envs=2, time_limit_steps=4), 6)
    for many, few in zip(three, two, strict=True):
        assert many[:2] == pytest.approx(few, abs=1e-6)


def test_bad_input_of_a_vector_gets_one_sentence():
    with pytest.raises(ConfigError, match="num_envs = 0"):
        LanderVectorEnv(0)
    with pytest.raises(ConfigError, match="use NextStep or SameStep"):
        LanderVectorEnv(2, autoreset_mode="Disabled")
    env = LanderVectorEnv(2)
    with pytest.raises(ValueError, match="1 seeds for 2 landers"):
        env.reset(seed=[1])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        env.step(np.zeros((2, 3)))
    actions = np.tile(OFF, (2, 1))
    actions[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"landers \[1\] contain a NaN"):
        env.step(actions)
