"""The agent of the first product: five small networks without recurrence or distributions.

Encoder 6-64-32, dynamics 34-64-32, reward 32-32-1, decoder 32-64-6, actor 32-64-32-2 with tanh. The
model learns by gradient on reconstruction, next-state and reward error; the actor by the gradient
of the imagined rewards through the model (Hafner et al. 2020, "Dream to Control", Eq. 7, without a
value network).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlcar.agents.documented.settings import DocumentedConfig
from rlcar.types import Array, Batch, Learner, Metrics, Params, Policy, Spec, TimeStep

_CRASH_BELOW = -5.0  # half the reward of a crash


class Networks(NamedTuple):
    """Pure functions of one `params`."""

    init: Callable  # (key) -> params
    encode: Callable  # (params, observation [N, O]) -> latent [N, L]
    advance: Callable  # (params, latent, action [N, A]) -> latent
    reward: Callable  # (params, latent) -> [N]
    decode: Callable  # (params, latent) -> observation
    actor: Callable  # (params, latent) -> action in [-1, 1]


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params
    optimizer: optax.OptState
    exploration_probability: jax.Array  # []
    key: jax.Array
    train_steps: jax.Array  # [] int32


def make_networks(config: DocumentedConfig, spec: Spec) -> Networks:
    """Builds the five networks."""
    hidden, latent = config.hidden_units, config.latent_units

    def build() -> tuple:
        encoder = hk.nets.MLP([hidden, latent], name="encoder")
        dynamics = hk.nets.MLP([hidden, latent], name="dynamics")
        reward_net = hk.nets.MLP([latent, 1], name="reward")
        decoder = hk.nets.MLP([hidden, spec.observation_size], name="decoder")
        actor_net = hk.nets.MLP([hidden, latent, spec.action_size], name="actor")

        def advance(state: jax.Array, action: jax.Array) -> jax.Array:
            return dynamics(jnp.concatenate([state, action], axis=-1))

        def reward(state: jax.Array) -> jax.Array:
            return reward_net(state)[..., 0]

        def actor(state: jax.Array) -> jax.Array:
            return jnp.tanh(actor_net(state))

        def init(observation: jax.Array) -> None:
            state = encoder(observation)
            reward(advance(state, actor(state)))
            decoder(state)

        return init, (encoder, advance, reward, decoder, actor)

    transformed = hk.without_apply_rng(hk.multi_transform(build))
    dummy = np.zeros((1, spec.observation_size), np.float32)
    return Networks(lambda key: transformed.init(key, dummy), *transformed.apply)


def make_policy(config: DocumentedConfig, spec: Spec) -> Policy:
    """Acts from the encoded observation; explores with Gaussian noise at a decaying probability."""
    networks = make_networks(config, spec)

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[Any, Array]:
        weights = params["networks"]
        action = networks.actor(weights, networks.encode(weights, time_step.observation))
        if explore:
            noise_key, chance_key = jax.random.split(key)
            noise = config.exploration_noise * jax.random.normal(noise_key, action.shape)
            chance = jax.random.uniform(chance_key, (action.shape[0], 1))
            action = action + jnp.where(chance < params["exploration_probability"], noise, 0.0)
        return carry, jnp.clip(action, -1.0, 1.0)

    return Policy(lambda number: (), act)


def make_learner(config: DocumentedConfig, spec: Spec) -> Learner:
    """Builds an off-policy `Learner`; each train step minimises both losses."""
    networks = make_networks(config, spec)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(config.learning_rate))

    def init(seed: int) -> TrainState:
        key, init_key = jax.random.split(jax.random.PRNGKey(seed))
        params = networks.init(init_key)
        probability = jnp.asarray(config.exploration_start, jnp.float32)
        steps = jnp.zeros((), jnp.int32)
        return TrainState(params, optimizer.init(params), probability, key, steps)

    def loss(params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
        model_loss, latent, metrics = _model_loss(networks, params, batch)
        actor_loss = -_imagined_return(networks, config, params, latent)
        return model_loss + actor_loss, metrics | {"actor/loss": actor_loss}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gradients, metrics = jax.grad(loss, has_aux=True)(state.params, batch)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        probability = jnp.maximum(
            config.exploration_end, state.exploration_probability * config.exploration_decay
        )
        metrics |= {
            "optimizer/gradient_norm": optax.tree.norm(gradients),
            "actor/exploration_probability": probability,
        }
        params = optax.apply_updates(state.params, updates)
        steps = state.train_steps + 1
        return TrainState(params, optimizer_state, probability, state.key, steps), metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    # `init` is jitted too: otherwise JAX would compile each small operation, which takes seconds.
    return Learner(jax.jit(init), jax.jit(update, donate_argnums=0), _policy_params)


def _policy_params(state: TrainState) -> Params:
    needed = {
        name: module
        for name, module in state.params.items()
        if name.split("/")[0] in ("encoder", "actor")
    }
    return {"networks": needed, "exploration_probability": state.exploration_probability}


def _model_loss(
    networks: Networks, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array, Metrics]:
    """Returns the sum of the model's errors, the latent states `[B * T, L]`, and metrics."""
    size, length = batch.reward.shape
    latent = networks.encode(params, batch.observation.reshape(size * length, -1))
    decoded = networks.decode(params, latent).reshape(batch.observation.shape)
    reconstruction = jnp.mean(jnp.square(decoded - batch.observation))

    latents = latent.reshape(size, length, -1)
    now = latents[:, :-1].reshape(size * (length - 1), -1)
    action = batch.previous_action[:, 1:].reshape(now.shape[0], -1)
    predicted = networks.advance(params, now, action)
    # An episode's first state does not follow from the action before it.
    weight = 1.0 - batch.is_first[:, 1:].astype(jnp.float32).reshape(-1)
    target = batch.observation[:, 1:].reshape(now.shape[0], -1)
    latent_target = jax.lax.stop_gradient(latents[:, 1:].reshape(predicted.shape))
    error = jnp.mean(jnp.square(networks.decode(params, predicted) - target), -1)
    latent_error = jnp.mean(jnp.square(predicted - latent_target), -1)
    dynamics = jnp.mean(weight * (error + latent_error))
    reward_error = networks.reward(params, predicted) - batch.reward[:, 1:].reshape(-1)
    reward = jnp.mean(weight * jnp.square(reward_error))
    total = reconstruction + dynamics + reward
    metrics = {
        "model/loss": total,
        "model/reconstruction_loss": reconstruction,
        "model/dynamics_loss": dynamics,
        "model/reward_loss": reward,
    }
    return total, latent, metrics


def _imagined_return(
    networks: Networks, config: DocumentedConfig, params: Params, latent: jax.Array
) -> jax.Array:
    """Returns the mean discounted reward of H imagined steps; only the actor gets a gradient."""
    frozen = jax.lax.stop_gradient(params)
    actor = {name: params[name] for name in params if name.split("/")[0] == "actor"}
    mixed = {**frozen, **actor}

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        latent, discount = carry
        latent = networks.advance(frozen, latent, networks.actor(mixed, latent))
        reward = networks.reward(frozen, latent)
        # No network predicts the end of an episode. Only a crash has such a low reward, so imagined
        # rewards end there; otherwise crashing at speed would pay better than turning.
        continues = jax.nn.sigmoid(reward - _CRASH_BELOW)
        return (latent, discount * config.discount * continues), discount * reward

    starts = jax.lax.stop_gradient(latent)
    _, rewards = jax.lax.scan(
        step, (starts, jnp.ones(len(starts))), None, length=config.imagination_length
    )
    return jnp.mean(jnp.sum(rewards, axis=0))
