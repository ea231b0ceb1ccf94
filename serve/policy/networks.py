"""Policies in NumPy: one step of each algorithm, as its JAX policy takes it without exploring.

A call with one observation takes tens of microseconds, and no batch size has to be compiled.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rlcar.config import Config
from rlcar.registry import NORMALISER

Arrays = Mapping[str, np.ndarray]
State = tuple[np.ndarray, ...]  # each [B, ...]; empty where a policy remembers nothing


class Network(NamedTuple):
    """Pure functions of arrays that they hold."""

    widths: tuple[int, ...]  # of the state's arrays
    # (state, observation [B, O], is_first [B] bool) -> (action [B, A], state)
    step: Callable[[State, np.ndarray, np.ndarray], tuple[np.ndarray, State]]
    latent_shape: tuple[int, int] | None = None  # S, K of the state's second array


def make_network(config: Config, arrays: Arrays) -> Network:
    """Builds the step of `config.algorithm` for the race."""
    if config.algorithm == "dreamer":
        return _dreamer(config, arrays)
    if config.algorithm == "documented":
        return _documented(arrays)
    if config.algorithm == "ppo":
        return _ppo(config, arrays)
    return _q_learning(arrays, config.algorithm == "sac")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # overflows nowhere


class _Norm:
    """RMSNorm and SiLU, with few passes over small arrays: silu(2 h) = h (1 + tanh h)."""

    def __init__(self, scale: np.ndarray):
        size = scale.shape[-1]
        self._half_scale = (0.5 * size**0.5 * scale).astype(np.float32)
        self._epsilon = np.float32(1e-4 * size)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        root = np.vecdot(x, x)
        root += self._epsilon
        np.sqrt(root, out=root)
        half = x / root[..., None]
        half *= self._half_scale
        out = np.tanh(half)
        out += 1.0
        out *= half
        return out


def _normed(arrays: Arrays, name: str) -> Callable[[np.ndarray], np.ndarray]:
    weight, norm = arrays[f"{name}.w"], _Norm(arrays[f"{name}.scale"])
    return lambda x: norm(x @ weight)


def _stack(arrays: Arrays, name: str, layers: int) -> Callable[[np.ndarray], np.ndarray]:
    parts = [_normed(arrays, f"{name}/layer_{index}") for index in range(layers)]

    def apply(x: np.ndarray) -> np.ndarray:
        for part in parts:
            x = part(x)
        return x

    return apply


def _dense(arrays: Arrays, name: str) -> Callable[[np.ndarray], np.ndarray]:
    weight, bias = arrays[f"{name}.w"], arrays[f"{name}.b"]
    return lambda x: x @ weight + bias


def _dreamer(config: Config, arrays: Arrays) -> Network:
    """Filters the observation into recurrent and latent state, and takes the mode of both."""
    model, units = config.dreamer.world_model, config.dreamer.world_model.recurrent_units
    groups, classes = model.latent_groups, model.latent_classes
    encoder = _stack(arrays, "world_model.encoder", model.encoder_layers)
    advance = _advance(config, arrays)
    posterior_in = _normed(arrays, "world_model.rssm/~posterior/posterior_in")
    posterior_out = _dense(arrays, "world_model.rssm/~_logits/posterior_out")
    actor = _stack(arrays, "actor.actor", config.dreamer.actor_critic.layers)
    action_out = _dense(arrays, "actor.action_out")
    scale, one_hot = np.float32(model.observation_scale), np.eye(classes, dtype=np.float32)

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        number = len(observation)
        if not model.has_memory:  # the belief is inferred from the present observation alone
            recurrent = np.zeros((number, units), np.float32)
        else:
            if is_first.any():
                keep = 1.0 - is_first.astype(np.float32)[:, None]
                state = tuple(part * keep for part in state)
            recurrent = advance(*state)
        scaled = scale * observation
        embedding = encoder(np.sign(scaled) * np.log1p(np.abs(scaled)))
        logits = posterior_out(posterior_in(np.concatenate([recurrent, embedding], axis=-1)))
        # Mixing in a uniform keeps the order of probabilities, so the mode is that of the logits.
        best = np.argmax(logits.reshape(number, groups, classes), axis=-1)
        latent = one_hot.take(best, axis=0).reshape(number, groups * classes)
        head = action_out(actor(np.concatenate([recurrent, latent], axis=-1)))
        action = np.tanh(head[:, : head.shape[1] // 2])
        return action, (recurrent, latent, action)

    return Network((units, groups * classes, 2), step, (groups, classes))


def _advance(
    config: Config, arrays: Arrays
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """The block-diagonal GRU of `rlcar.agents.dreamer.layers.BlockGru`, with what feeds it."""
    model, name = config.dreamer.world_model, "world_model.rssm/~advance"
    blocks, units = model.recurrent_blocks, model.recurrent_units
    size = units // blocks
    names = [f"{name}/{part}_in" for part in ("recurrent", "latent", "action")]
    weights = [arrays[f"{part}.w"] for part in names]
    norm_inputs = _Norm(np.stack([arrays[f"{part}.scale"] for part in names]))
    shared_w, norm = arrays[f"{name}/gru.shared_w"], _Norm(arrays[f"{name}/gru.scale"])
    block_w, gates_w, gates_b = (
        arrays[f"{name}/gru.{part}"] for part in ("block_w", "gates_w", "gates_b")
    )

    def grouped(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), blocks, -1).swapaxes(0, 1)

    def ungrouped(x: np.ndarray) -> np.ndarray:
        return x.swapaxes(0, 1).reshape(-1, units)

    def advance(recurrent: np.ndarray, latent: np.ndarray, action: np.ndarray) -> np.ndarray:
        products = np.empty((len(recurrent), 3, model.hidden_units), np.float32)
        for index, x in enumerate((recurrent, latent, action)):
            np.matmul(x, weights[index], out=products[:, index])
        shared = norm_inputs(products).reshape(len(recurrent), -1)
        old = grouped(recurrent)
        hidden = norm(shared @ shared_w + ungrouped(old @ block_w))
        gates = grouped(hidden) @ gates_w + gates_b
        reset, candidate = gates[..., :size], gates[..., size : 2 * size]
        candidate = np.tanh(_sigmoid(reset) * candidate)
        update = _sigmoid(gates[..., 2 * size :] - 1.0)
        return ungrouped(old + update * (candidate - old))

    return advance


def _documented(arrays: Arrays) -> Network:
    encoder = _mlp(arrays, [f"networks.encoder/~/linear_{index}" for index in range(2)])
    actor = _mlp(arrays, [f"networks.actor/~/linear_{index}" for index in range(3)])

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        return np.tanh(actor(encoder(observation))), state

    return Network((), step)


def _q_learning(arrays: Arrays, has_deviation: bool) -> Network:
    actor = _mlp(arrays, [f"mlp/~/linear_{index}" for index in range(3)])

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        out = actor(observation)
        return np.tanh(out[:, : out.shape[1] // 2] if has_deviation else out), state

    return Network((), step)


def _mlp(arrays: Arrays, names: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    layers = [_dense(arrays, name) for name in names]

    def apply(x: np.ndarray) -> np.ndarray:
        for layer in layers[:-1]:
            x = np.maximum(layer(x), 0.0)
        return layers[-1](x)

    return apply


def _ppo(config: Config, arrays: Arrays) -> Network:
    """Normalises, remembers with a GRU if there is one, and takes the mean."""
    mean = arrays["moments.mean"]
    inverse = 1.0 / np.sqrt(arrays["moments.variance"] + np.float32(NORMALISER["epsilon"]))
    limit = np.float32(NORMALISER["limit"])
    layers = [_dense(arrays, f"networks.policy_{name}") for name in (0, 1, "out")]
    units = config.ppo.recurrent_units
    remember = _gru(arrays, units) if units else None

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        x = np.clip((observation - mean) * inverse, -limit, limit)
        if remember is not None:
            memory = remember(np.where(is_first[:, None], np.float32(0.0), state[0]), x)
            state, x = (memory,), np.concatenate([memory, x], axis=-1)
        action = layers[2](np.tanh(layers[1](np.tanh(layers[0](x)))))
        return np.minimum(np.maximum(action, -1.0), 1.0), state

    return Network((units,) if units else (), step)


def _gru(arrays: Arrays, units: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The GRU of Haiku (Chung et al. 2014), on an embedded observation."""
    embed = _dense(arrays, "networks.embed")
    input_w, bias = arrays["networks.gru.w_i"], arrays["networks.gru.b"]
    gates_w, candidate_w = np.split(arrays["networks.gru.w_h"], [2 * units], axis=1)

    def remember(memory: np.ndarray, x: np.ndarray) -> np.ndarray:
        seen = np.tanh(embed(x)) @ input_w + bias
        gates = _sigmoid(seen[:, : 2 * units] + memory @ gates_w)
        update, reset = gates[:, :units], gates[:, units:]
        candidate = np.tanh(seen[:, 2 * units :] + (reset * memory) @ candidate_w)
        return (1.0 - update) * memory + update * candidate

    return remember
