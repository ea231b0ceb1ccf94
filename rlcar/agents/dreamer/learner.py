"""The training state and the jitted update of the world-model agent."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.dreamer.actor_critic import (
    ActorCritic,
    HeadOutputs,
    Imagined,
    Replayed,
    imagination_loss,
    make_actor_critic,
    replay_value_loss,
)
from rlcar.agents.dreamer.distributions import two_hot_mean
from rlcar.agents.dreamer.ensemble import Ensemble, ensemble_loss, make_ensemble, penalised
from rlcar.agents.dreamer.layers import entries, entry_weight
from rlcar.agents.dreamer.model_loss import world_model_loss
from rlcar.agents.dreamer.optimizer import make_optimizer, tensor_norms
from rlcar.agents.dreamer.products import products_in
from rlcar.agents.dreamer.returns import ReturnRange, initial_return_range
from rlcar.agents.dreamer.rssm import RssmState, draw_latent, feature_size, latent_noise, remembered
from rlcar.agents.dreamer.settings import DreamerConfig
from rlcar.agents.dreamer.step_loss import by_cache
from rlcar.agents.dreamer.time_scan import scan
from rlcar.agents.dreamer.world_model import (
    Observed,
    WorldModel,
    features,
    make_world_model,
)
from rlcar.devices.data_parallel import draw_for_rows, mean_over_devices, on_each_device
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes; saving it resumes training exactly."""

    params: Params  # {"world_model", "actor", "critic"}, and "ensemble" if there is one
    slow_critic: Params  # running average of the critic; regularises it
    average: Params  # running average of world model and actor, which drives
    optimizer: optax.OptState
    return_range: ReturnRange
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


def policy_part(params: Params) -> Params:
    """Returns the part that acting needs: encoder, dynamics and actor."""
    needed = {
        name: module
        for name, module in params["world_model"].items()
        if name.split("/")[0] in ("encoder", "encoder_image", "rssm")
    }
    return {"world_model": needed, "actor": params["actor"]}


def _averaged_part(params: Params) -> Params:
    return {name: params[name] for name in ("world_model", "actor")}


def make_learner(config: DreamerConfig, spec: Spec) -> Learner:
    """Builds an off-policy `Learner`; `update` runs all its train steps in one jitted call."""
    settings = config.actor_critic
    model = make_world_model(config.world_model, spec)
    networks = make_actor_critic(settings, spec, feature_size(config.world_model))
    optimizer = make_optimizer(config.optimizer)
    ensemble = make_ensemble(config, spec) if config.uncertainty.heads else None
    loss = partial(_loss, config, model, networks, ensemble)

    def init(seed: int) -> TrainState:
        key, *keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        params = {
            "world_model": model.init(keys[0]),
            "actor": networks.init_actor(keys[1]),
            "critic": networks.init_critic(keys[2]),
        }
        if ensemble is not None:
            params["ensemble"] = ensemble.init(jax.random.fold_in(key, 1))
        # Copies, because `update` donates the state, and JAX cannot donate a buffer twice.
        copy = partial(jax.tree.map, jnp.copy)
        return TrainState(
            params,
            copy(params["critic"]),
            copy(_averaged_part(params)),
            optimizer.init(params),
            initial_return_range(),
            key,
            jnp.zeros((), jnp.int32),
        )

    @on_each_device
    def gradient(
        batch: Batch, state: TrainState, key: jax.Array
    ) -> tuple[Params, Metrics, ReturnRange]:
        found = jax.grad(loss, has_aux=True)(state.params, state, batch, key)
        gradients, (return_range, metrics) = found
        return *mean_over_devices((gradients, metrics)), return_range

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, loss_key = jax.random.split(state.key)
        gradients, metrics, return_range = gradient(batch, state, loss_key)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        slow_critic = optax.incremental_update(
            params["critic"], state.slow_critic, settings.slow_value_rate
        )
        # With a constant rate the average would contain the random start for too long.
        average_rate = jnp.maximum(settings.policy_average_rate, 1.0 / (state.train_steps + 1.0))
        average = optax.incremental_update(_averaged_part(params), state.average, average_rate)
        metrics["optimizer/gradient_norm"] = jnp.linalg.norm(tensor_norms(gradients))
        state = TrainState(
            params,
            slow_critic,
            average,
            optimizer_state,
            return_range,
            key,
            state.train_steps + 1,
        )
        return state, metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        with products_in(config.precision):
            if batches.reward.shape[0] == 1:  # without a loop, for the reason given in `Trainer`
                return train_step(state, jax.tree.map(lambda x: x[0], batches))
            state, metrics = jax.lax.scan(train_step, state, batches)
            return state, jax.tree.map(jnp.mean, metrics)

    # `init` is jitted too: otherwise JAX would compile each small operation, which takes seconds.
    return Learner(
        jax.jit(init), jax.jit(update, donate_argnums=0), lambda state: policy_part(state.average)
    )


def _loss(
    config: DreamerConfig,
    model: WorldModel,
    networks: ActorCritic,
    ensemble: Ensemble | None,
    params: Params,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, tuple[ReturnRange, Metrics]]:
    """Returns the sum of all losses, with the new return range and metrics; consumes the key."""
    settings = config.actor_critic
    observe_key, imagine_key = jax.random.split(key)
    discount = 1.0 - 1.0 / settings.discount_horizon
    model_loss, (observed, metrics) = world_model_loss(
        model, config.world_model, params["world_model"], batch, discount, observe_key
    )
    last = min(settings.imagination_last, batch.reward.shape[1])
    starts = RssmState(*(x[-last:] for x in observed.state))
    head_params = params | {"slow_critic": state.slow_critic}
    imagined = imagine(model, networks, config, head_params, starts, imagine_key)
    if ensemble is not None:
        heads = params["ensemble"]
        metrics["model/ensemble_loss"] = ensemble_loss(ensemble, heads, observed, batch)
        model_loss += metrics["model/ensemble_loss"]
        imagined, metrics["model/uncertainty_nats"] = penalised(
            ensemble, heads, config.uncertainty.penalty, imagined
        )
    policy_loss, (start_return, return_range, policy_metrics) = imagination_loss(
        networks, settings, params, imagined, state.return_range
    )
    replayed = _replayed_tail(observed, batch, start_return.reshape(last, -1))
    replay_loss = replay_value_loss(networks, settings, params, state.slow_critic, replayed)
    total = model_loss + policy_loss + settings.replay_value_scale * replay_loss
    metrics |= policy_metrics | {"critic/replay_loss": replay_loss}
    return total, (return_range, metrics)


def imagine(
    model: WorldModel,
    networks: ActorCritic,
    config: DreamerConfig,
    params: Params,
    starts: RssmState,
    key: jax.Array,
) -> Imagined:
    """Imagines H steps with the current policy from N = T * B `starts [T, B, ...]`.

    The key is consumed. `params` are the learner's parameters and the slow critic. No gradient
    flows in or out: the actor learns by REINFORCE on the imagined steps.
    """

    def dream(at_each_step: bool) -> Callable:
        return partial(_dream, model, networks, config, at_each_step=at_each_step)

    params, starts = jax.lax.stop_gradient((params, starts))
    time, size = starts.recurrent.shape[:2]
    rows = config.actor_critic.imagination_length * time * size
    return jax.lax.stop_gradient(by_cache(rows, dream(True), dream(False), params, starts, key))


def _dream(
    model: WorldModel,
    networks: ActorCritic,
    config: DreamerConfig,
    params: Params,
    starts: RssmState,
    key: jax.Array,
    *,
    at_each_step: bool,
) -> Imagined:
    """Imagines; evaluates reward and value heads at each step, or for all steps at the end."""
    world, length = params["world_model"], config.actor_critic.imagination_length
    time, size = starts.recurrent.shape[:2]
    rows, number = (length, time, size), time * size
    action_key, latent_key = jax.random.split(key)
    noise = draw_for_rows(partial(networks.distribution.noise, action_key), rows)
    uniform = latent_noise(latent_key, config.world_model.latent_groups, rows)
    noises = tuple(x.reshape(length, number, *x.shape[3:]) for x in (noise, uniform))
    starts = RssmState(*(x.reshape(number, -1) for x in starts))
    head_outputs_of = partial(_head_outputs, model, networks, params)

    def step(state: RssmState, inputs: tuple) -> tuple[RssmState, tuple]:
        noise, uniform = inputs
        feature = features(state)
        outputs = head_outputs_of(feature) if at_each_step else None
        if outputs is None:
            head = networks.actor(params["actor"], feature)
        else:
            head = networks.actor(params["actor"], entry=outputs.actor_entry)
        action = networks.distribution.sample(head, noise)
        recurrent = model.advance(world, state, model.encode_action(world, action))
        latent = draw_latent(model.prior(world, recurrent), uniform)
        state = RssmState(remembered(config.world_model, recurrent), latent)
        return state, (feature, action, outputs)

    last, (feature, action, outputs) = scan(step, starts, noises)
    if outputs is None:
        flat = head_outputs_of(feature.reshape(length * number, -1))
        outputs = jax.tree.map(lambda x: x.reshape(length, number, *x.shape[1:]), flat)
    end = head_outputs_of(features(last))
    outputs = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), outputs, end)
    return Imagined(feature, action, outputs)


def _head_outputs(
    model: WorldModel, networks: ActorCritic, params: Params, feature: jax.Array
) -> HeadOutputs:
    """Returns the outputs of heads, critics and the actor's first layer for `feature [N, F]`."""
    world, critic, slow_critic = params["world_model"], params["critic"], params["slow_critic"]
    weights = [
        entry_weight(world, "reward"),
        entry_weight(world, "continue"),
        entry_weight(critic, "critic"),
        entry_weight(slow_critic, "critic"),
        entry_weight(params["actor"], "actor"),
    ]
    reward, continues, value, slow_value, actor = entries(feature, weights)
    return HeadOutputs(
        two_hot_mean(model.reward(world, entry=reward)),
        jax.nn.sigmoid(model.continues(world, entry=continues)),
        two_hot_mean(networks.critic(critic, entry=value)),
        two_hot_mean(networks.critic(slow_critic, entry=slow_value)),
        actor_entry=actor,
        critic_entry=value,
    )


def _replayed_tail(observed: Observed, batch: Batch, bootstrap: jax.Array) -> Replayed:
    """Returns the last steps of the batch, from which imagination started."""
    last = bootstrap.shape[0]

    def tail(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x[:, -last:], 0, 1)

    return Replayed(
        features(observed.state)[-last:],
        tail(batch.reward),
        tail(batch.is_last),
        tail(batch.is_terminal),
        bootstrap,
    )
