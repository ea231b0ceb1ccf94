import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.config.sections import EnvironmentConfig
from rlcar.datasets import Dataset, DatasetWriter, Episode, World
from rlcar.datasets.description import describe
from rlcar.errors import DatasetError
from rlcar.evaluation.environment import spec_of
from rlcar.evaluation.off_policy.logged import Logged, logged_of
from rlcar.evaluation.off_policy.policies import (
    NamedPolicy,
    actions_of,
    learned_policy,
    policy_of_driver,
)
from rlcar.sim import SPEC
from rlcar.types import Policy, Spec, TimeStep
from tests.support.recordings import record
from tests.support.tiny_run import make_tiny_config, tiny_agent


def recorded(steps: int, seed: int, size: int = SPEC.observation_size) -> Episode:
    random = np.random.default_rng(seed)
    return Episode(
        random.random((steps + 1, size), np.float32),
        random.uniform(-1, 1, (steps, 2)).astype(np.float32),
        np.ones(steps, np.float32),
        seed % 2 == 0,
        seed % 2 == 1,
    )


EPISODES = [recorded(steps, seed) for seed, steps in enumerate((5, 2, 9))]
LOGGED = logged_of(EPISODES, 2, is_discrete=False)


def test_a_policy_without_memory_answers_to_each_row():
    policy = Policy(lambda n: (), lambda p, c, now, key, explore: (c, 2.0 * now.observation[:, :2]))
    actions = actions_of(NamedPolicy("double", policy, None), LOGGED)
    np.testing.assert_allclose(actions.action, np.minimum(2.0 * LOGGED.observation[:, :2], 1.0))
    expected = np.minimum(2.0 * LOGGED.next_observation[:, :2], 1.0)
    np.testing.assert_allclose(actions.next_action, expected)


def test_a_world_model_follows_each_episode_as_if_it_had_driven_it():
    """Step by step, with the recorded actions in its memory, and no other episode beside it."""
    config = make_tiny_config()
    agent = tiny_agent(config)
    params = agent.learner.policy_params(agent.learner.init(0))
    actions = actions_of(NamedPolicy("model", agent.policy, params), LOGGED)
    assert agent.policy.with_action is not None
    for index, episode in enumerate(EPISODES):
        carry, answers = agent.policy.initial(1), []
        for step, observation in enumerate(episode.observation):
            none = jnp.zeros(1, bool)
            is_first = jnp.full(1, step == 0)
            now = TimeStep(jnp.asarray(observation[None]), jnp.zeros(1), is_first, none, none)
            carry, action = agent.policy.act(params, carry, now, jax.random.key(0), False)
            answers.append(np.asarray(action)[0])
            if step < episode.transitions:
                carry = agent.policy.with_action(carry, episode.action[step][None])
        rows = slice(LOGGED.bounds[index], LOGGED.bounds[index + 1])
        np.testing.assert_allclose(actions.action[rows], answers[:-1], atol=1e-5)
        np.testing.assert_allclose(actions.next_action[rows], answers[1:], atol=1e-5)


def test_answers_that_are_not_finite_are_refused():
    policy = Policy(
        lambda n: (), lambda p, c, now, key, explore: (c, now.observation[:, :2] * jnp.nan)
    )
    with pytest.raises(DatasetError, match="broken answers to the data with a number"):
        actions_of(NamedPolicy("broken", policy, None), LOGGED)


def test_parameters_that_are_not_finite_are_refused():
    """The largest of several NaN is an action like any other."""
    policy = Policy(
        lambda n: (),
        lambda p, c, now, key, explore: (c, jax.nn.one_hot(jnp.argmax(now.observation * p, 1), 2)),
    )
    with pytest.raises(DatasetError, match="the parameters of broken are not all finite"):
        actions_of(NamedPolicy("broken", policy, jnp.nan), LOGGED)


def write(folder, world: World, spec: Spec) -> Dataset:
    with DatasetWriter(folder, describe(world, spec)) as writer:
        writer.append(recorded(3, 0, spec.observation_size))
    return Dataset.open(folder)


def test_policies_of_other_worlds_are_refused(tmp_path):
    race = write(tmp_path / "race", World(race=make_config().race), SPEC)
    other = write(tmp_path / "other", World(name="mine"), Spec(4, 2))
    config = make_tiny_config()
    policy = tiny_agent(config).policy
    assert learned_policy("run", config, policy, None, race).name == "run"
    with pytest.raises(DatasetError, match="run was trained in the race, and .* in mine"):
        learned_policy("run", config, policy, None, other)
    with pytest.raises(DatasetError, match="careful drives the race, and .* in mine"):
        policy_of_driver("careful", other)
    faster = make_config(world="grand-prix")
    with pytest.raises(DatasetError, match="trained on speed in units of"):
        learned_policy("run", faster, policy, None, race)


def test_a_policy_with_other_sizes_is_refused_in_words(tmp_path):
    data = write(tmp_path / "data", World(name="mine"), Spec(4, 2))
    config = make_config(environment="rlcar/Catch-v0")
    policy = tiny_agent(make_tiny_config()).policy
    with pytest.raises(DatasetError, match="has observations of 4 numbers and 2 numbers as an act"):
        learned_policy("run", config, policy, None, data)


def test_policies_of_other_environments_of_equal_sizes_are_refused(tmp_path):
    catch = make_config(environment="rlcar/Catch-v0")
    world = World(environment=EnvironmentConfig(id="Elsewhere-v0"))
    data = record(tmp_path / "data", world=world, spec=spec_of(catch), episodes=1)
    policy = tiny_agent(make_tiny_config()).policy
    with pytest.raises(DatasetError, match="trained in rlcar/Catch-v0, and .* in Elsewhere-v0"):
        learned_policy("run", catch, policy, None, data)


def test_images_are_refused(tmp_path):
    from rlcar.evaluation.off_policy.logged import read_logged

    spec = Spec(0, 2, False, (2, 2, 3))
    with DatasetWriter(tmp_path / "images", describe(World(name="mine"), spec)) as writer:
        image = np.zeros((4, 2, 2, 3), np.uint8)
        writer.append(Episode(image, np.zeros((3, 2), np.float32), np.zeros(3), True, False))
    with pytest.raises(DatasetError, match="are images: off-policy evaluation needs numbers"):
        read_logged(Dataset.open(tmp_path / "images"), 100)


def test_whole_episodes_are_read_up_to_the_limit(tmp_path):
    from rlcar.evaluation.off_policy.logged import read_logged

    with DatasetWriter(tmp_path / "data", describe(World(name="mine"), Spec(6, 2))) as writer:
        for seed in range(10):
            writer.append(recorded(7, seed))
    logged: Logged = read_logged(Dataset.open(tmp_path / "data"), 30)
    assert logged.episodes == 4
    assert len(logged.reward) == 28
    assert read_logged(Dataset.open(tmp_path / "data"), 1).episodes == 1


def test_episodes_of_every_part_are_read(tmp_path):
    """After `rlcar data merge A B` the parts are those of one driver, then those of the other."""
    from rlcar.evaluation.off_policy.logged import read_logged

    description = describe(World(name="mine"), Spec(6, 2))
    with DatasetWriter(tmp_path / "data", description, part_transitions=70) as writer:
        for index in range(40):
            episode = recorded(7, index)
            writer.append(episode._replace(reward=np.full(7, index >= 20, np.float32)))
    data = Dataset.open(tmp_path / "data")
    assert len(data.parts) == 4
    for seed in range(5):
        logged = read_logged(data, 140, seed)
        assert logged.episodes == 20
        assert 0.2 < logged.reward.mean() < 0.8
