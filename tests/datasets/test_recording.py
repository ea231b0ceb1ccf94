"""Recordings hold what the environments returned, in whole episodes and in the asked shares."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import rlcar.envs
from rlcar.cli.behaviours import parse_driver
from rlcar.config import EnvironmentConfig
from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.behaviour import (
    Behaviour,
    Noise,
    make_act,
    noise_of_random,
    parse_noise,
    random_policy,
)
from rlcar.datasets.description import describe
from rlcar.datasets.recording import EnvironmentRecorder, RaceRecorder, record
from rlcar.envs.vector import environment_spec
from rlcar.errors import DatasetError
from rlcar.evaluation.drivers import DRIVERS
from rlcar.sim import SPEC
from rlcar.sim.gym_env import RaceEnv
from rlcar.types import Policy, Spec, TimeStep
from tests.support.tiny_run import make_tiny_config, tiny_agent

RACE = RaceConfig(time_limit_steps=400)
TRACKS = range(16)


def record_race(folder, behaviours, transitions, cars=8, **options):
    def make(behaviour, cars, seed):
        return RaceRecorder(RACE, TRACKS, behaviour, cars, seed)

    with DatasetWriter(folder, describe(World(race=RACE), SPEC), resume=True) as writer:
        record(writer, behaviours, make, transitions=transitions, cars=cars, seed=3, **options)
    return Dataset.open(folder)


def behaviour(name, noise=Noise(), share=1.0):  # noqa: B008  an immutable default
    return Behaviour(name, DRIVERS[name], None, noise, share)


def test_recorded_actions_lead_to_the_recorded_observations(tmp_path):
    """The Gymnasium environment of one car repeats a recorded episode on the same track."""
    data = record_race(tmp_path / "data", [behaviour("careful", Noise(0.2, 0.2))], 1_500)
    episode = next(data.episodes_iter())
    for track_seed in TRACKS:
        env = RaceEnv(config=RACE)
        observation, _ = env.reset(options={"track_seed": track_seed})
        if np.array_equal(observation, episode.observation[0]):
            break
    replayed = [observation]
    for action, reward in zip(episode.action, episode.reward, strict=True):
        observation, paid, terminated, truncated, _ = env.step(action)
        replayed.append(observation)
        assert paid == reward
    np.testing.assert_array_equal(np.stack(replayed), episode.observation)
    assert (terminated, truncated) == (episode.is_terminal, episode.is_truncated)


def test_every_episode_is_whole_and_the_target_is_reached(tmp_path):
    data = record_race(tmp_path / "data", [behaviour("careful", Noise(0.1, 0.5))], 4_000)
    assert 4_000 <= data.transitions < 4_000 + 8 * 400
    for episode in data.episodes_iter():
        assert episode.is_terminal or episode.transitions == 400


def test_a_mixture_has_its_shares(tmp_path):
    drivers = [behaviour("careful", share=3.0), behaviour("full_throttle", Noise(0.5, 0.5))]
    data = record_race(tmp_path / "data", drivers, 12_000)
    counts = {"careful": 0, "full_throttle": 0}
    for episode in data.episodes_iter():
        counts[episode.policy] += episode.transitions
        assert (episode.action_logp is None) == (episode.policy == "careful")
    assert counts["careful"] / data.transitions == pytest.approx(0.75, abs=0.08)


def test_a_recording_that_is_stopped_loses_nothing_and_continues(tmp_path):
    seen = []

    def stop():
        return len(seen) == 2

    drivers = [behaviour("careful", Noise(0.1, 0.1))]
    data = record_race(
        tmp_path / "data", drivers, 50_000, should_stop=stop, on_progress=seen.append
    )
    assert data.transitions == seen[-1]
    assert any(episode.is_truncated for episode in data.episodes_iter())
    firsts = [episode.observation for episode in data.episodes_iter()]
    more = record_race(tmp_path / "data", drivers, data.transitions + 2_000)
    assert more.transitions >= data.transitions + 2_000
    kept = list(more.episodes_iter())
    for before, after in zip(firsts, kept, strict=False):
        np.testing.assert_array_equal(before, after.observation)
    # The continued recording drives other races.
    assert not np.array_equal(kept[len(firsts)].observation, firsts[0])


def test_equal_seeds_record_equal_numbers(tmp_path):
    drivers = [behaviour("careful", Noise(0.2, 0.3)), behaviour("longest_ray", Noise(0.1, 0.1))]
    first, second = (record_race(tmp_path / name, drivers, 3_000) for name in ("one", "two"))
    assert first.fingerprint == second.fingerprint


def test_images_and_discrete_actions_are_recorded_as_the_environment_returns_them(tmp_path):
    config = EnvironmentConfig(id=rlcar.envs.CATCH_ID)
    spec = environment_spec(config)
    random = Behaviour("random", random_policy(spec), None, noise_of_random(spec))
    with DatasetWriter(tmp_path, describe(World(environment=config), spec)) as writer:
        record(
            writer,
            [random],
            lambda *arguments: EnvironmentRecorder(config, spec, *arguments),
            transitions=100,
            cars=2,
            seed=0,
        )
    data = Dataset.open(tmp_path)
    assert data.spec == spec
    env = gymnasium.make(config.id)
    for episode in data.episodes_iter():
        assert episode.observation.dtype == np.uint8
        np.testing.assert_allclose(episode.action_logp, -np.log(spec.action_size), rtol=1e-6)
        assert episode.action.max() < spec.action_size
    env.close()


def _drawn(mean, amount, number=4_000):
    policy = Policy(
        lambda cars: None, lambda p, c, step, key, explore: (c, np.full((number, 1), mean))
    )
    one = Behaviour("one", policy, None, Noise(amount, amount))
    step = TimeStep(*(np.zeros((number, 1), np.float32), *[np.zeros(number)] * 4))
    _, action, logp = make_act(one, Spec(1, 1), number)(None, None, step, jax.random.PRNGKey(0))
    return np.asarray(action)[:, 0], np.asarray(logp)


@pytest.mark.parametrize(("mean", "amount"), [(0.0, 0.3), (1.0, 0.1), (-0.7, 2.0)])
def test_log_probabilities_are_those_of_the_noise(mean, amount):
    action, logp = _drawn(mean, amount)
    order = np.argsort(action)
    density = np.interp(np.linspace(-1, 1, 4001), action[order], np.exp(logp[order]))
    inside = np.linspace(-1, 1, 4001)
    inside = (inside >= action.min()) & (inside <= action.max())
    assert density[inside].sum() / 2000 == pytest.approx(1.0, abs=0.01)
    # The mean of the samples is that of the density.
    scale = quad(lambda x: np.exp(-0.5 * ((x - mean) / amount) ** 2), -1, 1)[0]
    expected = quad(lambda x: x * np.exp(-0.5 * ((x - mean) / amount) ** 2), -1, 1)[0] / scale
    assert action.mean() == pytest.approx(expected, abs=0.03)


def test_random_driving_takes_many_distinct_actions():
    spec, cars = Spec(1, 1), 50_000
    random = Behaviour("random", random_policy(spec), None, noise_of_random(spec))
    step = TimeStep(*(np.zeros((cars, 1), np.float32), *[np.zeros(cars)] * 4))
    _, action, _ = make_act(random, spec, cars)(None, None, step, jax.random.PRNGKey(0))
    assert len(np.unique(action)) > 30_000


def test_a_policy_with_a_memory_remembers_the_noisy_action():
    agent = tiny_agent(make_tiny_config())
    params = agent.learner.policy_params(agent.learner.init(0))
    learned = Behaviour("world model", agent.policy, params, Noise(0.5, 0.5))
    none = jnp.zeros(3, bool)
    step = TimeStep(jnp.zeros((3, 6)), jnp.zeros(3), jnp.ones(3, bool), none, none)
    act = jax.jit(make_act(learned, SPEC, 3))
    carry, action, _ = act(params, agent.policy.initial(3), step, jax.random.PRNGKey(0))
    np.testing.assert_array_equal(carry.action, action)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("0.2", 0.2, 0.2), ("0.1-0.4", 0.1, 0.4), ("1e-3", 0.001, 0.001), ("1e-3-.5", 0.001, 0.5)],
)
def test_a_noise_is_parsed(text, low, high):
    assert parse_driver(f"careful@{text}=2").noise == Noise(low, high)


@pytest.mark.parametrize("text", ["0", "0.4-0.1", "11", "1-2-3", "0.1-", "1e", ".", "1e-99999"])
def test_a_noise_that_is_no_amount_is_refused(text):
    with pytest.raises(DatasetError, match=f"the noise '{text}' must be a number from 0"):
        parse_noise(text, "careful")


def test_random_driving_is_uniform(tmp_path):
    random = Behaviour("random", random_policy(SPEC), None, noise_of_random(SPEC))
    data = record_race(tmp_path / "data", [random], 3_000)
    actions = np.concatenate([episode.action for episode in data.episodes_iter()])
    logps = np.concatenate([episode.action_logp for episode in data.episodes_iter()])
    np.testing.assert_allclose(logps, -2 * np.log(2.0), atol=1e-3)
    assert np.abs(np.quantile(actions, [0.25, 0.5, 0.75]) - [-0.5, 0.0, 0.5]).max() < 0.06
