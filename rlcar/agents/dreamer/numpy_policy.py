"""The world-model policy in NumPy, and the arrays that it needs."""

from collections.abc import Callable

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.dreamer.settings import DreamerConfig
from rlcar.agents.numpy_network import Arrays, Layer, NumpyNetwork, State, linear, sigmoid
from rlcar.agents.shapes import linear_shapes


def make_numpy_network(config: DreamerConfig, arrays: Arrays) -> NumpyNetwork:
    """Builds the step of the policy: filters the observation, and takes the most likely action."""
    model, units = config.world_model, config.world_model.recurrent_units
    groups, classes = model.latent_groups, model.latent_classes
    encoder = _stack(arrays, "world_model.encoder", model.encoder_layers)
    advance = _advance(config, arrays)
    posterior_in = _normed(arrays, "world_model.rssm/~posterior/posterior_in")
    posterior_out = linear(arrays, "world_model.rssm/~_logits/posterior_out")
    actor = _stack(arrays, "actor.actor", config.actor_critic.layers)
    action_out = linear(arrays, "actor.action_out")
    action_size = arrays["actor.action_out.b"].shape[0] // 2
    scale, indices = np.float32(model.observation_scale), np.arange(classes)
    nothing = np.zeros(units, np.float32)

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        if not model.has_memory:  # the belief is inferred from the present observation alone
            recurrent = observation[:, :1] * nothing
        else:
            if is_first.any():
                keep = 1.0 - is_first.astype(np.float32)[:, None]
                state = tuple(part * keep for part in state)
            recurrent = advance(*state)
        scaled = scale * observation
        embedding = encoder(np.sign(scaled) * np.log1p(np.abs(scaled)))
        logits = posterior_out(posterior_in(np.concatenate([recurrent, embedding], axis=-1)))
        # The uniform mix keeps the order of probabilities, so the mode is that of the logits.
        best = np.argmax(logits.reshape(-1, groups, classes), axis=-1)
        latent = (best[..., None] == indices).astype(np.float32).reshape(-1, groups * classes)
        head = action_out(actor(np.concatenate([recurrent, latent], axis=-1)))
        action = np.tanh(head[:, :action_size])
        return action, (recurrent, latent, action)

    return NumpyNetwork((units, groups * classes, action_size), step, (groups, classes))


def _advance(
    config: DreamerConfig, arrays: Arrays
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Builds the input layers and the GRU of `rlcar.agents.dreamer.layers.BlockGru`."""
    model, name = config.world_model, "world_model.rssm/~advance"
    blocks, units = model.recurrent_blocks, model.recurrent_units
    size, hidden_units = units // blocks, model.hidden_units
    names = [f"{name}/{part}_in" for part in ("recurrent", "latent", "action")]
    recurrent_w, latent_w, action_w = (arrays[f"{part}.w"] for part in names)
    norm_inputs = _Norm(np.stack([arrays[f"{part}.scale"] for part in names]))
    shared_w, norm = arrays[f"{name}/gru.shared_w"], _Norm(arrays[f"{name}/gru.scale"])
    block_w, gates_w, gates_b = (
        arrays[f"{name}/gru.{part}"] for part in ("block_w", "gates_w", "gates_b")
    )

    def grouped(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, blocks, size).swapaxes(0, 1)

    def ungrouped(x: np.ndarray) -> np.ndarray:
        return x.swapaxes(0, 1).reshape(-1, units)

    def advance(recurrent: np.ndarray, latent: np.ndarray, action: np.ndarray) -> np.ndarray:
        products = np.concatenate(
            (recurrent @ recurrent_w, latent @ latent_w, action @ action_w), axis=-1
        ).reshape(-1, 3, hidden_units)
        shared = norm_inputs(products).reshape(-1, 3 * hidden_units)
        old = grouped(recurrent)
        hidden = norm(shared @ shared_w + ungrouped(old @ block_w))
        gates = grouped(hidden) @ gates_w + gates_b
        reset, candidate = gates[..., :size], gates[..., size : 2 * size]
        candidate = np.tanh(sigmoid(reset) * candidate)
        update = sigmoid(gates[..., 2 * size :] - 1.0)
        return ungrouped(old + update * (candidate - old))

    return advance


class _Norm:
    """RMSNorm and SiLU with few passes over small arrays, by silu(2 h) = h (1 + tanh h)."""

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


def _normed(arrays: Arrays, name: str) -> Layer:
    weight, norm = arrays[f"{name}.w"], _Norm(arrays[f"{name}.scale"])
    return lambda x: norm(x @ weight)


def _stack(arrays: Arrays, name: str, layers: int) -> Layer:
    parts = [_normed(arrays, f"{name}/layer_{index}") for index in range(layers)]

    def apply(x: np.ndarray) -> np.ndarray:
        for part in parts:
            x = part(x)
        return x

    return apply


def array_shapes(config: DreamerConfig, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    model, actor = config.world_model, config.actor_critic
    recurrent, hidden, blocks = model.recurrent_units, model.hidden_units, model.recurrent_blocks
    latent, size = model.latent_groups * model.latent_classes, recurrent // blocks
    advance, posterior = "world_model.rssm/~advance", "world_model.rssm/~posterior"
    prior, logits = "world_model.rssm/~prior", "world_model.rssm/~_logits"
    return {
        **_stack_shapes("world_model.encoder", observation_size, model.units, model.encoder_layers),
        **_normed_shapes(f"{advance}/recurrent_in", recurrent, hidden),
        **_normed_shapes(f"{advance}/latent_in", latent, hidden),
        **_normed_shapes(f"{advance}/action_in", action_size, hidden),
        f"{advance}/gru.shared_w": (3 * hidden, recurrent),
        f"{advance}/gru.block_w": (blocks, size, size),
        f"{advance}/gru.scale": (recurrent,),
        f"{advance}/gru.gates_w": (blocks, size, 3 * size),
        f"{advance}/gru.gates_b": (blocks, 1, 3 * size),
        **_normed_shapes(f"{posterior}/posterior_in", recurrent + model.units, hidden),
        **linear_shapes(f"{logits}/posterior_out", hidden, latent),
        **_normed_shapes(f"{prior}/prior_in", recurrent, hidden),
        **_normed_shapes(f"{prior}/prior_hidden", hidden, hidden),
        **linear_shapes(f"{logits}/prior_out", hidden, latent),
        **_stack_shapes("actor.actor", recurrent + latent, actor.units, actor.layers),
        **linear_shapes("actor.action_out", actor.units, 2 * action_size),
    }


def _normed_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.w": (inputs, outputs), f"{name}.scale": (outputs,)}


def _stack_shapes(name: str, inputs: int, units: int, layers: int) -> Shapes:
    shapes = _normed_shapes(f"{name}/layer_0", inputs, units)
    for index in range(1, layers):
        shapes |= _normed_shapes(f"{name}/layer_{index}", units, units)
    return shapes
