"""Names and shapes of the arrays that acting needs, as a config implies them.

What training writes has them by construction; a file that others made is held against them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.config import Config, parse_config
from rlcar.errors import ConfigError, RegistryError
from rlcar.evaluation.statistics import impossible_moments

Shapes = dict[str, tuple[int, ...]]


def check_arrays(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises RegistryError unless the arrays are finite float32 of the config's shapes.

    Policies that see images, or choose among discrete actions, are only checked for finiteness.
    """
    for key, array in arrays.items():
        if array.dtype != np.float32:
            raise RegistryError(f"{name}: array {key!r} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise RegistryError(f"{name}: array {key!r} has values that are not finite")
    impossible = impossible_moments(arrays)
    if impossible:
        raise RegistryError(f"{name}: {impossible}")
    try:
        parsed = parse_config(config)
    except ConfigError as error:
        raise RegistryError(f"{name} has a config that this rlcar cannot read: {error}") from error
    if parsed.environment.id:
        return
    layers = parsed.dreamer.world_model.encoder_layers, parsed.dreamer.actor_critic.layers
    if parsed.algorithm == "dreamer" and max(layers) > len(arrays):
        raise RegistryError(f"{name} has {len(arrays)} arrays, too few for {max(layers)} layers")
    wanted = policy_shapes(parsed)
    for key, shape in wanted.items():
        if key not in arrays:
            raise RegistryError(f"{name} has no array {key!r}, which its config asks for")
        if arrays[key].shape != shape:
            raise RegistryError(
                f"{name}: array {key!r} has shape {list(arrays[key].shape)}, expected {list(shape)}"
            )
    surplus = next((key for key in arrays if key not in wanted), None)
    if surplus is not None:
        raise RegistryError(f"{name} has an array {surplus[:60]!r}, which its config does not know")


def policy_shapes(config: Config, observation_size: int = 6, action_size: int = 2) -> Shapes:
    """Returns the shape of every array of a policy for the race."""
    o, a = observation_size, action_size
    if config.algorithm == "dreamer":
        return _dreamer(config, o, a)
    if config.algorithm == "documented":
        hidden, latent = config.documented.hidden_units, config.documented.latent_units
        return {
            "exploration_probability": (),
            **_dense("networks.encoder/~/linear_0", o, hidden),
            **_dense("networks.encoder/~/linear_1", hidden, latent),
            **_dense("networks.actor/~/linear_0", latent, hidden),
            **_dense("networks.actor/~/linear_1", hidden, latent),
            **_dense("networks.actor/~/linear_2", latent, a),
        }
    if config.algorithm == "ppo":
        return _ppo(config, o, a)
    units = config.sac.hidden_units if config.algorithm == "sac" else config.td3.hidden_units
    return {
        **_dense("mlp/~/linear_0", o, units),
        **_dense("mlp/~/linear_1", units, units),
        **_dense("mlp/~/linear_2", units, 2 * a if config.algorithm == "sac" else a),
    }


def _dense(name: str, size_in: int, size_out: int) -> Shapes:
    return {f"{name}.w": (size_in, size_out), f"{name}.b": (size_out,)}


def _normed(name: str, size_in: int, size_out: int) -> Shapes:
    return {f"{name}.w": (size_in, size_out), f"{name}.scale": (size_out,)}


def _stack(name: str, size_in: int, units: int, layers: int) -> Shapes:
    shapes = _normed(f"{name}/layer_0", size_in, units)
    for index in range(1, layers):
        shapes |= _normed(f"{name}/layer_{index}", units, units)
    return shapes


def _dreamer(config: Config, o: int, a: int) -> Shapes:
    model, actor = config.dreamer.world_model, config.dreamer.actor_critic
    recurrent, hidden, blocks = model.recurrent_units, model.hidden_units, model.recurrent_blocks
    latent, size = model.latent_groups * model.latent_classes, recurrent // blocks
    advance, posterior = "world_model.rssm/~advance", "world_model.rssm/~posterior"
    prior, logits = "world_model.rssm/~prior", "world_model.rssm/~_logits"
    return {
        **_stack("world_model.encoder", o, model.units, model.encoder_layers),
        **_normed(f"{advance}/recurrent_in", recurrent, hidden),
        **_normed(f"{advance}/latent_in", latent, hidden),
        **_normed(f"{advance}/action_in", a, hidden),
        f"{advance}/gru.shared_w": (3 * hidden, recurrent),
        f"{advance}/gru.block_w": (blocks, size, size),
        f"{advance}/gru.scale": (recurrent,),
        f"{advance}/gru.gates_w": (blocks, size, 3 * size),
        f"{advance}/gru.gates_b": (blocks, 1, 3 * size),
        **_normed(f"{posterior}/posterior_in", recurrent + model.units, hidden),
        **_dense(f"{logits}/posterior_out", hidden, latent),
        **_normed(f"{prior}/prior_in", recurrent, hidden),
        **_normed(f"{prior}/prior_hidden", hidden, hidden),
        **_dense(f"{logits}/prior_out", hidden, latent),
        **_stack("actor.actor", recurrent + latent, actor.units, actor.layers),
        **_dense("actor.action_out", actor.units, 2 * a),
    }


def _ppo(config: Config, o: int, a: int) -> Shapes:
    units, memory = config.ppo.hidden_units, config.ppo.recurrent_units
    seen = memory + o
    shapes: Shapes = {"moments.mean": (o,), "moments.variance": (o,), "moments.count": ()}
    if memory:
        shapes |= {
            **_dense("networks.embed", o, units),
            "networks.gru.w_i": (units, 3 * memory),
            "networks.gru.w_h": (memory, 3 * memory),
            "networks.gru.b": (3 * memory,),
        }
    shapes["networks.~.log_deviation"] = (a,)
    for tower, size in (("policy", a), ("value", 1)):
        shapes |= {
            **_dense(f"networks.{tower}_0", seen, units),
            **_dense(f"networks.{tower}_1", units, units),
            **_dense(f"networks.{tower}_out", units, size),
        }
    return shapes
