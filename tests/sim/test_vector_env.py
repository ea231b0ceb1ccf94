"""The race as a Gymnasium vector environment."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rlcar.sim
from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError
from rlcar.sim import make_race
from rlcar.sim.vector_env import RaceVectorEnv
from rlcar.track import TRACK_SETS, make_pool

SHORT = RaceConfig(time_limit_steps=40)


def _centred(observation):
    left = observation[:, 4] + observation[:, 3] - observation[:, 1] - observation[:, 0]
    return np.stack([np.clip(2 * left, -1, 1), np.ones(len(left))], axis=1).astype(np.float32)


def test_it_is_made_by_name_with_both_modes_declared():
    for name, mode in (
        (rlcar.sim.ENVIRONMENT_ID, AutoresetMode.SAME_STEP),
        (rlcar.sim.GRAND_PRIX_ID, AutoresetMode.NEXT_STEP),
    ):
        env = gymnasium.make_vec(name, num_envs=3, autoreset_mode=mode, track_set="test")
        assert env.metadata["autoreset_mode"] == mode
        observation, _ = env.reset(seed=1)
        assert env.observation_space.contains(observation)
        observation, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward.shape == (3,)
        env.close()


def test_it_drives_the_very_race():
    env = RaceVectorEnv(16, config=SHORT, track_set="validation", track_choice="fixed")
    pool = make_pool(TRACK_SETS["validation"], SHORT.track)
    race = make_race(SHORT, pool, xp=np, track_choice="fixed")
    observation, _ = env.reset(seed=4)
    state, time_step = race.reset(np.arange(16, dtype=np.int32), 0)
    for _ in range(90):
        np.testing.assert_array_equal(observation, time_step.observation)
        action = _centred(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        state, time_step, _ = race.step(state, action)
        np.testing.assert_array_equal(reward, time_step.reward)
        np.testing.assert_array_equal(terminated, time_step.is_terminal)
        np.testing.assert_array_equal(truncated, time_step.is_last & ~time_step.is_terminal)


def test_next_step_returns_the_last_observation_and_then_starts_anew():
    env = RaceVectorEnv(4, config=SHORT)
    last, _ = env.reset(seed=0)
    for _ in range(40):
        last, _, _, truncated, _ = env.step(_centred(last))
    assert truncated.all()
    assert last[:, 5].min() > 0.5
    fresh, reward, _, truncated, _ = env.step(np.ones((4, 2), np.float32))
    assert not truncated.any()
    assert (reward == 0).all()
    assert (fresh[:, 5] == 0).all()


def test_same_step_returns_the_next_first_observation_and_keeps_the_last():
    config = RaceConfig(time_limit_steps=40)
    next_step = RaceVectorEnv(4, config=config)
    same_step = RaceVectorEnv(4, config=config, autoreset_mode="SameStep")
    observation, _ = next_step.reset(seed=0)
    twin, _ = same_step.reset(seed=0)
    np.testing.assert_array_equal(observation, twin)
    for _ in range(40):
        action = _centred(observation)
        observation, reward, _, truncated, _ = next_step.step(action)
        twin, twin_reward, _, twin_truncated, infos = same_step.step(action)
        np.testing.assert_array_equal(reward, twin_reward)
        np.testing.assert_array_equal(truncated, twin_truncated)
    assert infos["_final_obs"].all()
    np.testing.assert_array_equal(np.stack(infos["final_obs"]), observation)
    fresh, *_ = next_step.step(np.zeros((4, 2), np.float32))
    np.testing.assert_array_equal(twin, fresh)


def test_a_lap_is_reported_with_its_time():
    env = RaceVectorEnv(8, track_set="test")
    observation, _ = env.reset(seed=0)
    for step in range(1, 400):
        observation, _, terminated, _, infos = env.step(_centred(observation))
        if "lap_time" in infos:
            assert terminated[infos["_lap_time"]].all()
            assert set(infos["lap_time"][infos["_lap_time"]]) == {step}
            return
    pytest.fail("nobody lapped")


def test_a_list_of_seeds_gives_each_car_its_own_races():
    env = RaceVectorEnv(3, track_set="validation")
    together, _ = env.reset(seed=[5, 6, 5])
    np.testing.assert_array_equal(together[0], together[2])
    assert (together[0] != together[1]).any()
    fixed = RaceVectorEnv(3, track_set="validation", track_choice="fixed")
    apart, _ = fixed.reset(seed=[5, 5, 5])
    assert (apart[0] != apart[1]).any()  # each on its own track all the same
    with pytest.raises(ValueError, match="2 seeds for 3 cars"):
        env.reset(seed=[1, 2])


def test_impossible_arguments_are_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="65 cars cannot have a track each"):
        RaceVectorEnv(65, track_set="test", track_choice="fixed")
    with pytest.raises(ConfigError, match="unknown track set 'tets'"):
        RaceVectorEnv(2, track_set="tets")
    with pytest.raises(ConfigError, match="unknown world 'grandprix'"):
        RaceVectorEnv(2, world="grandprix")
    with pytest.raises(ConfigError, match="num_envs = 0: give a positive"):
        RaceVectorEnv(0)
    with pytest.raises(ConfigError, match="autoreset_mode = Disabled .* NextStep or SameStep"):
        RaceVectorEnv(2, autoreset_mode=AutoresetMode.DISABLED)
    env = RaceVectorEnv(2, track_set="test")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"the shape \(2,\): pass an array of the shape \(2, 2\)"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match=r"cars \[1\] contain a NaN"):
        env.step(np.array([[0.0, 0.0], [np.nan, 0.0]]))
