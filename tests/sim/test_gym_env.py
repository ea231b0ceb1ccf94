"""The race as a Gymnasium environment."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rlcar.sim
from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError
from rlcar.sim import make_race
from rlcar.sim.gym_env import RaceEnv
from rlcar.track import CIRCUIT_SEEDS, make_pool, make_track


def _centred(observation):
    steering = 2 * (observation[4] + observation[3] - observation[1] - observation[0])
    return np.array([np.clip(steering, -1, 1), 1.0], np.float32)


@pytest.mark.parametrize("world", ["classic", pytest.param("grand-prix", marks=pytest.mark.long)])
def test_gymnasiums_own_checker_finds_nothing(world):
    check_env(RaceEnv(world), skip_render_check=True)


@pytest.mark.parametrize("settings", [{"world": "grandprix"}, {"track_set": "tets"}])
def test_an_unknown_name_is_refused(settings):
    with pytest.raises(ConfigError, match="unknown (world|track set) '"):
        RaceEnv(**settings)


def test_a_named_circuit_is_driven():
    env = RaceEnv(track_set="circuits")
    _, info = env.reset(seed=0, options={"track_seed": CIRCUIT_SEEDS["heart"]})
    assert info["track_seed"] == CIRCUIT_SEEDS["heart"]


def test_it_is_registered_under_its_name():
    env = gymnasium.make(rlcar.sim.ENVIRONMENT_ID, config=RaceConfig(laps=2))
    assert env.unwrapped.config.laps == 2
    env.close()


def test_a_lap_is_reported_with_its_time_and_where_the_car_is():
    env = RaceEnv(track_set="validation")
    observation, info = env.reset(seed=0)
    assert 10_000 <= info["track_seed"] < 10_064
    terminated = truncated = False
    steps = 0
    keys = info.keys()
    while not terminated and not truncated:
        assert info["lap_time"] == 0
        observation, _, terminated, truncated, info = env.step(_centred(observation))
        assert info.keys() == keys  # recorders stack the infos of all steps
        steps += 1
    assert terminated
    assert info["lap_time"] == steps
    assert info["progress"] == 1.0
    assert info["speed"] == 5.0
    assert 0 <= info["heading"] < 360


def test_a_given_track_is_driven():
    env = RaceEnv()
    _, info = env.reset(options={"track_seed": 20_001})
    assert info["track_seed"] == 20_001
    track = make_track(20_001, env.config.track)
    assert (info["x"], info["y"]) == tuple(track.centre_px[0])


def test_one_seed_fixes_the_whole_sequence_of_tracks():
    sequences = []
    for _ in range(2):
        env = RaceEnv()
        seeds = [env.reset(seed=5)[1]["track_seed"]]
        seeds += [env.reset()[1]["track_seed"] for _ in range(4)]
        sequences.append(seeds)
    assert sequences[0] == sequences[1]
    assert len(set(sequences[0])) > 2


def test_a_nan_action_is_refused_with_advice():
    env = RaceEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite numbers"):
        env.step([float("nan"), 1.0])


def test_a_step_without_a_running_episode_is_refused():
    env = RaceEnv(config=RaceConfig(time_limit_steps=1))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0.0, 0.0])
    env.reset(seed=0)
    *_, terminated, truncated, _ = env.step([0.0, 0.0])
    assert truncated
    assert not terminated
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0.0, 0.0])


@pytest.mark.parametrize("world", ["classic", "grand-prix"])
def test_it_drives_the_very_race_of_its_seed(world):
    env = RaceEnv(world)
    observation, info = env.reset(seed=9)
    config = env.config
    # The second number that the environment drew: the first chose the track.
    rng, _ = gymnasium.utils.seeding.np_random(9)
    rng.integers(10_000)
    car = np.array([info["track_seed"]], np.int32)  # the pool of the set holds it at this place
    fixed = make_race(
        config, make_pool([info["track_seed"]], config.track), xp=np, track_choice="fixed"
    )
    state, time_step = fixed.reset(car, np.int32(rng.integers(2**31)))
    for _ in range(60):
        np.testing.assert_array_equal(observation, time_step.observation[0])
        action = _centred(observation) * np.array([1.0, 0.5], np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        state, time_step, _ = fixed.step(state, action[None])
        assert reward == time_step.reward[0]
        assert terminated == time_step.is_terminal[0]
        assert (info["x"], info["heading"]) == (
            fixed.view(state).x_px[0],
            fixed.view(state).heading_deg[0],
        )
        if terminated:
            break


def test_two_resets_draw_different_hidden_conditions():
    env = RaceEnv("grand-prix")
    speeds = set()
    for _ in range(6):
        env.reset(options={"track_seed": 20_000})
        for _ in range(4):
            *_, info = env.step(np.array([0.0, 1.0], np.float32))
        speeds.add(info["speed"])
    assert len(speeds) > 1  # their actions take effect after another delay
