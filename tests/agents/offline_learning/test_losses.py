"""The losses of the algorithms for recorded data, with numbers computed by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.bc.learner import imitation_loss
from rlcar.agents.cql.losses import continuous_loss, discrete_loss, log_mean_exp
from rlcar.agents.cql.networks import values_of_actions
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.iql.learner import iql_loss
from rlcar.agents.iql.settings import IqlConfig
from rlcar.agents.q_learning.networks import Network, make_actor, make_critics
from rlcar.agents.q_learning.squashed_normal import squashed_sample
from rlcar.agents.q_learning.transitions import Transitions
from tests.agents.dreamer.tiny import SPEC

# Two steps; the second one ends its episode.
STEPS = Transitions(
    observation=jnp.array([[0.0], [1.0]]),
    action=jnp.array([[0.5], [-0.5]]),
    reward=jnp.array([10.0, 20.0]),
    next_observation=jnp.array([[1.0], [0.0]]),
    continues=jnp.array([1.0, 0.0]),
    weight=jnp.array([0.5, 0.5]),
)
ONE_HOT = STEPS._replace(action=jnp.array([[1.0, 0.0], [0.0, 1.0]]))


def _constant(output):
    """A network that gives the same output to every row."""
    value = jnp.asarray(output)

    def apply(params, observation, *rest):
        rows = (*value.shape[:-1], observation.shape[0], value.shape[-1])
        return params + jnp.broadcast_to(value[..., None, :], rows)

    return Network(lambda key: jnp.zeros(()), apply)


def test_cloning_measures_the_squared_distance_of_actions():
    actor = _constant([math.atanh(0.25)])
    loss = imitation_loss(actor, False, jnp.zeros(()), STEPS)
    assert loss == pytest.approx(0.5 * (0.25**2 + 0.75**2))


def test_cloning_discrete_actions_measures_their_cross_entropy():
    actor = _constant([math.log(3.0), 0.0])  # probabilities 3/4 and 1/4
    loss = imitation_loss(actor, True, jnp.zeros(()), ONE_HOT)
    assert loss == pytest.approx(-0.5 * (math.log(0.75) + math.log(0.25)))


def test_steps_without_weight_teach_nothing():
    weighted = STEPS._replace(weight=jnp.array([1.0, 0.0]))
    loss = imitation_loss(_constant([0.0]), False, jnp.zeros(()), weighted)
    assert loss == pytest.approx(0.25)


def test_the_mean_over_importance_weights_is_the_integral_over_all_actions():
    """For a constant value c, the integral of exp(c) over [-1, 1]^2 is 4 exp(c)."""
    uniform = jnp.full((7,), -math.log(4.0))
    assert log_mean_exp(1.5 - uniform) == pytest.approx(1.5 + math.log(4.0))


def test_conservative_values_of_discrete_actions_by_hand():
    config = CqlConfig(conservative_scale=2.0, discount=0.5, reward_scale=0.1)
    critics = _constant([[1.0, 3.0], [2.0, 0.0]])
    params = {"critics": jnp.zeros(())}
    loss, metrics = discrete_loss(config, critics, params, jnp.zeros(()), ONE_HOT)
    # The best of the lower values (1, 0) is 1.
    targets = np.array([1.0 + 0.5 * 1.0, 2.0])
    values = np.array([[1.0, 3.0], [2.0, 0.0]])  # of the recorded action at both steps
    error = 0.5 * 0.5 * np.square(values - targets).sum()
    soft = np.log(np.exp([[1.0, 3.0], [2.0, 0.0]]).sum(axis=1))
    gap = 0.5 * (soft[:, None] - values).sum()
    assert metrics["critic/loss"] == pytest.approx(error, rel=1e-5)
    assert metrics["critic/conservative_gap"] == pytest.approx(0.5 * gap, rel=1e-5)
    assert loss == pytest.approx(error + 2.0 * gap, rel=1e-5)


def test_critics_that_value_every_action_alike_have_a_known_conservative_loss():
    """Both critics give -1 everywhere: the gap is the logarithm of the volume of the actions."""
    config = CqlConfig(conservative_scale=5.0, discount=0.5, reward_scale=0.1, action_samples=3)
    actor = _constant([0.0, 0.0])
    critics = make_critics(4, SPEC._replace(observation_size=1, action_size=1))
    flat = jax.tree.map(jnp.zeros_like, critics.init(jax.random.PRNGKey(0)))
    flat["mlp/~/linear_2"]["b"] -= 1.0
    params = {"actor": jnp.zeros(()), "critics": flat, "log_temperature": jnp.asarray(0.0)}
    loss, metrics = continuous_loss(config, actor, -1.0, params, flat, STEPS, jax.random.PRNGKey(1))
    errors = np.square(-1.0 - np.array([1.0 + 0.5 * -1.0, 2.0]))
    assert metrics["critic/loss"] == pytest.approx(2 * 0.5 * errors.mean(), rel=1e-5)
    # The uniform actions give the volume 2 exactly; those of the policy estimate it.
    assert metrics["critic/conservative_gap"] == pytest.approx(math.log(2.0), abs=0.5)
    entropy = float(metrics["actor/entropy"])
    assert metrics["actor/loss"] == pytest.approx(-entropy + 1.0, rel=1e-5)  # temperature 1
    whole = metrics["critic/loss"] + 10.0 * metrics["critic/conservative_gap"]
    assert loss == pytest.approx(float(whole + metrics["actor/loss"]), rel=1e-5)


def test_many_actions_get_the_values_that_each_gets_alone():
    critics = make_critics(8, SPEC)
    params = critics.init(jax.random.PRNGKey(0))
    observation = jax.random.uniform(jax.random.PRNGKey(1), (5, 6))
    action = jax.random.uniform(jax.random.PRNGKey(2), (5, 3, 2))
    together = values_of_actions(params, observation, action)
    for index in range(3):
        alone = critics.apply(params, observation, action[:, index])
        np.testing.assert_allclose(together[..., index], alone, rtol=1e-5, atol=1e-6)


def test_implicit_q_learning_by_hand():
    config = IqlConfig(
        discount=0.5, reward_scale=0.1, expectile=0.9, advantage_scale=2.0, largest_weight=5.0
    )
    actor = _constant([math.atanh(0.25)])
    critics = Network(lambda key: None, lambda params, *inputs: params)
    state_value = _constant([1.0])
    slow = jnp.array([[2.0, 0.5], [3.0, 4.0]])  # the lower ones: 2 and 0.5
    params = {
        "actor": jnp.zeros(()),
        "critics": jnp.array([[1.0, 1.0], [2.0, 2.0]]),
        "value": jnp.zeros(()),
    }
    loss, metrics = iql_loss(config, False, actor, critics, state_value, params, slow, STEPS)
    value_loss = 0.5 * (0.9 * 1.0**2 + 0.1 * 0.5**2)
    targets = np.array([1.0 + 0.5 * 1.0, 2.0])
    critic_loss = 0.5 * np.square(np.array([[1.0, 1.0], [2.0, 2.0]]) - targets).sum()
    weights = np.minimum(np.exp([2.0 * 1.0, 2.0 * -0.5]), 5.0)
    actor_loss = 0.5 * np.sum(weights * np.square(0.25 - np.array([0.5, -0.5])))
    assert metrics["critic/expectile_loss"] == pytest.approx(value_loss, rel=1e-5)
    assert metrics["critic/loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor/loss"] == pytest.approx(actor_loss, rel=1e-5)
    assert metrics["actor/advantage_magnitude"] == pytest.approx(0.75)
    assert loss == pytest.approx(value_loss + critic_loss + actor_loss, rel=1e-5)


def test_implicit_q_learning_weighs_the_likelihood_of_discrete_actions_by_hand():
    config = IqlConfig(
        discount=0.5, reward_scale=0.1, expectile=0.8, advantage_scale=1.0, largest_weight=2.0
    )
    actor = _constant([math.log(3.0), 0.0])  # probabilities 3/4 and 1/4
    # Two critics that give each action a value of its own.
    critics = Network(lambda key: None, lambda params, observation, action: params @ action.T)
    values = jnp.array([[1.0, 2.0], [3.0, 0.0]])
    params = {"actor": jnp.zeros(()), "critics": values, "value": jnp.zeros(())}
    loss, metrics = iql_loss(
        config, True, actor, critics, _constant([1.0]), params, values, ONE_HOT
    )
    # The lower values of the recorded actions are min(1, 3) and min(2, 0).
    value_loss = 0.5 * (0.2 * 1.0**2)
    targets = np.array([1.0 + 0.5 * 1.0, 2.0])
    critic_loss = 0.5 * np.square(np.array([[1.0, 2.0], [3.0, 0.0]]) - targets).sum()
    weights = np.exp([0.0, -1.0])
    actor_loss = -0.5 * (weights[0] * math.log(0.75) + weights[1] * math.log(0.25))
    assert metrics["critic/expectile_loss"] == pytest.approx(value_loss, rel=1e-5)
    assert metrics["critic/loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor/loss"] == pytest.approx(actor_loss, rel=1e-5)
    assert loss == pytest.approx(value_loss + critic_loss + actor_loss, rel=1e-5)


def test_the_actor_of_conservative_q_learning_sees_its_own_critics():
    """The actor's gradient leads to the action that the critics prefer."""
    spec = SPEC._replace(observation_size=1, action_size=1)
    config = CqlConfig(hidden_units=4, action_samples=2, initial_temperature=1e-6)
    actor, critics = make_actor(4, spec, 2), make_critics(4, spec)
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    params = {
        "actor": actor.init(keys[0]),
        "critics": critics.init(keys[1]),
        "log_temperature": jnp.asarray(-14.0),
    }
    gradients, _ = jax.grad(continuous_loss, argnums=3, has_aux=True)(
        config, actor, -1.0, params, params["critics"], STEPS, keys[2]
    )

    def lower_value(actor_params) -> float:
        noise = jax.random.normal(jax.random.split(keys[2], 3)[0], (2, 2, 1))[:, 0]
        action, _ = squashed_sample(actor.apply(actor_params, STEPS.observation), noise)
        value = critics.apply(params["critics"], STEPS.observation, action).min(axis=0)
        return float(jnp.sum(STEPS.weight * value))

    stepped = jax.tree.map(lambda x, g: x - 0.01 * g, params["actor"], gradients["actor"])
    assert lower_value(stepped) > lower_value(params["actor"]) + 1e-6
