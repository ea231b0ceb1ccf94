"""What actor and critic learn from imagined and replayed steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer import step_loss
from rlcar.agents.dreamer.actor_critic import (
    HeadOutputs,
    Imagined,
    Replayed,
    imagination_loss,
    make_actor_critic,
    replay_value_loss,
)
from rlcar.agents.dreamer.distributions import TWO_HOT_BINS, two_hot_loss, two_hot_mean
from rlcar.agents.dreamer.layers import entry_weight
from rlcar.agents.dreamer.learner import _replayed_tail, imagine
from rlcar.agents.dreamer.returns import initial_return_range
from rlcar.agents.dreamer.rssm import RssmState, feature_size
from rlcar.agents.dreamer.world_model import Observed, make_world_model
from tests.agents.dreamer.tiny import SPEC, assert_trees_close, largest, quick_jit, random_batch

SIZE = 3  # of a feature
HALF = {"discount_horizon": 2.0, "lambda_": 0.5}  # discount and lambda are both one half


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def config(tiny_config):
    change = {**HALF, "entropy_scale": 0.0}
    return tiny_config.dreamer.actor_critic.model_copy(update=change)


@pytest.fixture(scope="module")
def networks(config):
    return make_actor_critic(config, SPEC, SIZE)


@pytest.fixture(scope="module")
def params(networks):
    keys = jax.random.split(jax.random.PRNGKey(0))
    critic = networks.init_critic(keys[1])
    # A critic that is not at its start, where every target costs the same.
    noisy = jax.tree.map(lambda x: x + 0.1 * _random(*x.shape), critic)
    return {"actor": networks.init_actor(keys[0]), "critic": noisy, "slow": critic}


@pytest.fixture(scope="module")
def replay_loss(networks, config, params):
    slow = jax.tree.map(lambda x: 2.0 * x, params["critic"])
    loss = quick_jit(lambda replayed: replay_value_loss(networks, config, params, slow, replayed))
    return slow, loss


def _cut_by_time(is_terminal=False):
    """Four steps of one car; the episode ends at step 2 and step 3 begins the next one."""
    end = np.array([False, False, True, False])[:, None]
    return Replayed(
        feature=_random(4, 1, SIZE),
        reward=jnp.array([9.0, 1.0, 2.0, 3.0])[:, None],
        is_last=end,
        is_terminal=end & is_terminal,
        bootstrap=jnp.array([9.0, 10.0, 20.0, 30.0])[:, None],
    )


@pytest.mark.parametrize(
    ("is_terminal", "targets"),
    [
        (False, [6.5, 12.0]),  # 2 + 20 / 2 = 12;  1 + (10 + 12) / 4 = 6.5
        (True, [4.0, 2.0]),  # 2;  1 + (10 + 2) / 4 = 4
    ],
)
def test_the_replay_value_loss_agrees_with_targets_made_by_hand(
    networks, params, replay_loss, is_terminal, targets
):
    replayed = _cut_by_time(is_terminal)
    slow, loss = replay_loss
    logits = networks.critic(params["critic"], replayed.feature[:2, 0])
    slow_value = two_hot_mean(networks.critic(slow, replayed.feature[:2, 0]))
    parts = two_hot_loss(logits, jnp.array(targets)) + two_hot_loss(logits, slow_value)
    # The episode's last step has no successor: it counts in the mean with a loss of zero.
    assert loss(replayed) == pytest.approx(float(jnp.sum(parts)) / 3, rel=1e-4)


def test_the_next_episode_does_not_leak_over_a_time_out(replay_loss):
    _, loss = replay_loss
    replayed = _cut_by_time()
    changed = replayed._replace(
        feature=replayed.feature.at[3].add(5.0),
        reward=replayed.reward.at[3].add(100.0),
        bootstrap=replayed.bootstrap.at[3].add(100.0),
    )
    assert loss(changed) == loss(replayed)
    without_end = replayed._replace(is_last=np.zeros((4, 1), bool))
    assert loss(without_end._replace(reward=changed.reward)) != loss(without_end)


def test_what_led_to_the_first_step_of_a_window_is_not_paid_in_it(replay_loss):
    _, loss = replay_loss
    replayed = _cut_by_time()
    assert loss(replayed._replace(reward=replayed.reward.at[0].add(50.0))) == loss(replayed)


def _dream(networks, params, reward, discount=1.0):
    """One imagined step of two cars, or more, outputs by `params` and the critic at its start."""
    reward = jnp.asarray(reward, jnp.float32)
    length, number = reward.shape
    feature = _random(length + 1, number, SIZE, seed=0)
    value, slow_value = (
        jnp.stack([two_hot_mean(networks.critic(params[name], step)) for step in feature])
        for name in ("critic", "slow")
    )
    outputs = HeadOutputs(
        reward=jnp.concatenate([jnp.full((1, number), 9.0), reward]),
        discount=jnp.broadcast_to(jnp.asarray(discount, jnp.float32), (length + 1, number)),
        value=value,
        slow_value=slow_value,
        actor_entry=feature @ entry_weight(params["actor"], "actor"),
        critic_entry=feature @ entry_weight(params["critic"], "critic"),
    )
    action = jnp.clip(_random(length, number, SPEC.action_size, seed=1), -1.0, 1.0)
    return Imagined(feature[:-1], action, outputs)


def _metric_gradient(networks, config, params, dream, name):
    def loss(trained):
        _, (_, _, metrics) = imagination_loss(
            networks, config, trained, dream, initial_return_range()
        )
        return metrics[name]

    return quick_jit(jax.grad(loss))(params)


def test_the_policy_gradient_makes_good_actions_likelier_and_bad_ones_less_likely(
    networks, config, params
):
    # The critic at its start says zero, so the sign of the reward is that of the advantage.
    start = {**params, "critic": params["slow"]}
    dream = _dream(networks, start, [[2.0, -2.0]], discount=0.5)
    gradient = _metric_gradient(networks, config, start, dream, "actor/loss")["actor"]
    moved = jax.tree.map(lambda x, g: x - 1e-3 * g, params["actor"], gradient)

    def log_prob(actor):
        head = networks.actor(actor, dream.feature[0])
        return networks.distribution.log_prob(head, dream.action[0])

    change = log_prob(moved) - log_prob(params["actor"])
    assert change[0] > 0
    assert change[1] < 0


def test_the_actors_loss_agrees_with_advantages_made_by_hand(networks, config, params):
    config = config.model_copy(update={"return_normaliser_rate": 0.0})  # the scale stays at one
    dream = _dream(networks, params, [[1.0, -2.0], [3.0, 0.5]], discount=0.5)
    (r1, r2), (v0, v1, v2) = dream.outputs.reward[1:], dream.outputs.value
    assert jnp.abs(v0 - v1).max() > 0.01
    return1 = r2 + 0.5 * v2
    return0 = r1 + 0.5 * (0.5 * v1 + 0.5 * return1)
    advantage = jnp.stack([return0 - v0, return1 - v1])
    log_prob = jnp.stack(
        [
            networks.distribution.log_prob(networks.actor(params["actor"], feature), action)
            for feature, action in zip(dream.feature, dream.action, strict=True)
        ]
    )
    _, (start_return, _, metrics) = imagination_loss(
        networks, config, params, dream, initial_return_range()
    )
    np.testing.assert_allclose(start_return, return0, rtol=1e-4)  # what bootstraps replayed steps
    # The second step counts as much as the chance of going on from the first.
    weight = jnp.array([[1.0], [0.5]])
    assert metrics["actor/loss"] == pytest.approx(float(-jnp.mean(weight * log_prob * advantage)))


def test_the_critic_replays_the_steps_that_dreams_began_at():
    batch = random_batch(3, 6)
    features = _random(6, 3, SIZE)
    state = RssmState(features[..., :1], features[..., 1:])
    tail = _replayed_tail(Observed(state, None, None), batch, jnp.zeros((2, 3)))
    np.testing.assert_array_equal(tail.feature, features[4:])
    for name in ("reward", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(tail, name), getattr(batch, name)[:, 4:].T)


def test_the_entropy_bonus_widens_the_policy(networks, config, params):
    config = config.model_copy(update={"entropy_scale": 1.0})
    start = {**params, "critic": params["slow"]}
    dream = _dream(networks, start, [[0.0, 0.0]], discount=0.5)
    gradient = _metric_gradient(networks, config, start, dream, "actor/loss")["actor"]
    moved = jax.tree.map(lambda x, g: x - 1e-2 * g, params["actor"], gradient)
    heads = [networks.actor(actor, dream.feature[0]) for actor in (params["actor"], moved)]
    before, after = (networks.distribution.entropy(head) for head in heads)
    assert (after > before).all()


def test_actor_and_critic_learn_from_their_own_losses_only(networks, config, params):
    dream = _dream(networks, params, [[2.0, -2.0], [1.0, 0.5]], discount=0.5)
    for own, other in (("actor", "critic"), ("critic", "actor")):
        gradient = _metric_gradient(networks, config, params, dream, f"{own}/loss")
        assert largest(gradient[own]) > 0
        assert largest(gradient[other]) == 0


def test_steps_after_the_dreamt_end_do_not_count(networks, config, params):
    discount = jnp.array([0.5, 0.0, 0.5, 0.5])[:, None]
    dream = _dream(networks, params, [[1.0], [2.0], [3.0]], discount)
    outputs = dream.outputs._replace(reward=dream.outputs.reward.at[2:].add(50.0))
    other = dream._replace(outputs=outputs, action=dream.action.at[1:].multiply(-1.0))
    # Percentiles of the returns see every step; a rate of zero leaves the scale at one.
    config = config.model_copy(update={"return_normaliser_rate": 0.0})

    @quick_jit
    def losses(dream):
        _, (_, _, metrics) = imagination_loss(
            networks, config, params, dream, initial_return_range()
        )
        return metrics["actor/loss"], metrics["critic/loss"]

    assert losses(dream) == losses(other)


def test_large_returns_are_scaled_down_before_they_reach_the_actor(networks, config, params):
    config = config.model_copy(update={"return_normaliser_rate": 1.0})
    start = {**params, "critic": params["slow"]}
    reward = jnp.linspace(-1e3, 1e3, 40)[None]
    loss = quick_jit(
        lambda dream: imagination_loss(networks, config, start, dream, initial_return_range())
    )
    _, (start_return, state, metrics) = loss(_dream(networks, start, reward, 0.5))
    np.testing.assert_allclose(start_return, reward[0])
    assert metrics["critic/return_scale"] == pytest.approx(1800, rel=1e-3)
    assert float(state.high - state.low) == pytest.approx(1800, rel=1e-3)
    # The mean of |x| over 2000 evenly spread, divided by 1800.
    assert metrics["actor/advantage_magnitude"] == pytest.approx(512.8 / 1800, rel=1e-3)


def test_an_untrained_critic_values_everything_at_exactly_zero(networks, params):
    logits = networks.critic(params["slow"], 10.0 * _random(50, SIZE))
    assert logits.shape == (50, TWO_HOT_BINS)
    assert largest(two_hot_mean(logits)) == 0.0


@pytest.fixture(scope="module")
def dreaming(tiny_config):
    """Networks, their parameters, and starts of four dreams."""
    dreamer = tiny_config.dreamer
    size = feature_size(dreamer.world_model)
    model = make_world_model(dreamer.world_model, SPEC)
    networks = make_actor_critic(dreamer.actor_critic, SPEC, size)
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    params = {
        "world_model": quick_jit(model.init)(keys[0]),
        "actor": networks.init_actor(keys[1]),
        "critic": networks.init_critic(keys[2]),
        "slow_critic": networks.init_critic(keys[2]),
    }
    latent_size = size - dreamer.world_model.recurrent_units
    recurrent_size = dreamer.world_model.recurrent_units
    starts = RssmState(_random(2, 2, recurrent_size), _random(2, 2, latent_size))
    return dreamer, model, networks, params, starts


def test_a_dream_is_judged_the_same_along_the_way_and_at_its_end(dreaming, monkeypatch):
    dreamer, model, networks, params, starts = dreaming
    # Heads that are at their start say zero of everything.
    params = jax.tree.map(lambda x: x + 0.1 * _random(*x.shape), params)

    def dream():
        key = jax.random.PRNGKey(1)
        return quick_jit(lambda p: imagine(model, networks, dreamer, p, starts, key))(params)

    at_the_end = dream()
    monkeypatch.setattr(step_loss, "CACHED_ROWS", 0)
    assert_trees_close(dream(), at_the_end, rtol=1e-4, atol=1e-5)
    feature = at_the_end.feature[2]
    outputs = jax.tree.map(lambda x: x[2], at_the_end.outputs)
    expected = two_hot_mean(networks.critic(params["slow_critic"], feature))
    np.testing.assert_allclose(outputs.slow_value, expected, rtol=1e-4, atol=1e-5)
    expected = two_hot_mean(model.reward(params["world_model"], feature))
    np.testing.assert_allclose(outputs.reward, expected, rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_from_a_dream_into_the_networks_that_dreamt_it(dreaming):
    dreamer, model, networks, params, starts = dreaming

    def loss(params, starts):
        dream = imagine(model, networks, dreamer, params, starts, jax.random.PRNGKey(1))
        outputs = dream.outputs._replace(reward=dream.outputs.reward + 1.0)
        dream = dream._replace(outputs=outputs)
        total, _ = imagination_loss(
            networks, dreamer.actor_critic, params, dream, initial_return_range()
        )
        return total

    gradient, into_starts = quick_jit(jax.grad(loss, argnums=(0, 1)))(params, starts)
    assert largest(gradient["world_model"]) == 0
    assert largest(gradient["slow_critic"]) == 0
    assert largest(into_starts) == 0
    assert largest(gradient["actor"]) > 0
    assert largest(gradient["critic"]) > 0
