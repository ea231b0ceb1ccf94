"""Acting: repeatable, car by car, and with no more than it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.learner import make_learner
from rlcar.agents.dreamer.policy import make_policy
from rlcar.types import TimeStep
from tests.agents.dreamer.tiny import DISCRETE, SPEC, assert_trees_close, quick_jit, quick_learner

CARS = 5


def _built(config, spec):
    """A policy whose actor says something else for each belief, as one in training does."""
    learner = quick_learner(make_learner(config.dreamer, spec))
    params = learner.policy_params(learner.init(0))
    actor = {name: dict(module) for name, module in params["actor"].items()}
    actor["action_out"]["w"] = 100.0 * actor["action_out"]["w"]
    policy = make_policy(config.dreamer, spec)
    act = quick_jit(policy.act, static_argnums=4)
    return policy._replace(act=act), {**params, "actor": actor}


@pytest.fixture(scope="module")
def driving(tiny_config):
    return _built(tiny_config, SPEC)


def _time_step(cars=CARS, seed=0, is_first=False):
    rng = np.random.default_rng(seed)
    never = np.zeros(cars, bool)
    observation = rng.uniform(-3, 3, (cars, SPEC.observation_size)).astype(np.float32)
    return TimeStep(observation, np.zeros(cars, np.float32), never | is_first, never, never)


def _drive(driving, steps, explore=False, key=0, first_seed=0):
    """Acts on one random observation after another; returns the last carry and action."""
    policy, params = driving
    carry = policy.initial(steps[0].reward.shape[0])
    keys = jax.random.split(jax.random.PRNGKey(key), len(steps))
    for time_step, step_key in zip(steps, keys, strict=True):
        carry, action = policy.act(params, carry, time_step, step_key, explore)
    return carry, action


STEPS = [_time_step(seed=seed, is_first=seed == 0) for seed in range(4)]


def test_without_exploration_the_key_does_not_matter(driving):
    one, other = (_drive(driving, STEPS, key=key) for key in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_exploration_depends_on_the_key_and_stays_within_the_limits(driving):
    (_, one), (_, other) = (_drive(driving, STEPS, explore=True, key=key) for key in (0, 1))
    assert (one != other).any()
    assert (jnp.abs(one) <= 1.0).all()


def test_cars_together_act_as_each_would_alone(driving):
    carry, action = _drive(driving, STEPS)
    assert len(np.unique(np.asarray(action), axis=0)) == CARS
    for car in range(CARS):
        alone = [jax.tree.map(lambda x, car=car: x[car : car + 1], step) for step in STEPS]
        own = jax.tree.map(lambda x, car=car: x[car : car + 1], (carry, action))
        assert_trees_close(_drive(driving, alone), own, rtol=1e-4, atol=1e-5)


def test_the_action_depends_on_what_was_seen_before(driving):
    _, action = _drive(driving, STEPS)
    _, other = _drive(driving, [_time_step(seed=9, is_first=True), *STEPS[1:]])
    assert (action != other).any()


def test_a_new_episode_forgets_the_one_before(driving):
    last = _time_step(seed=3, is_first=True)
    one = _drive(driving, [*STEPS[:3], last])
    other = _drive(driving, [last])
    assert_trees_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("explore", [False, True])
def test_discrete_actions_are_one_hot(tiny_config, explore):
    _, action = _drive(_built(tiny_config, DISCRETE), STEPS[:2], explore=explore)
    assert action.shape == (CARS, DISCRETE.action_size)
    assert set(np.unique(action)) == {0.0, 1.0}
    assert (jnp.sum(action, axis=-1) == 1.0).all()
