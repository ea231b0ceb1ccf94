"""The PPO policy in NumPy, and the arrays that it needs."""

from collections.abc import Callable

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.numpy_network import Arrays, NumpyNetwork, State, linear, normaliser, sigmoid
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.agents.shapes import linear_shapes, moments_shapes


def make_numpy_network(config: PpoConfig, arrays: Arrays) -> NumpyNetwork:
    """Normalises the observation, updates the GRU if there is one, and returns the mean action."""
    normalise = normaliser(arrays)
    layers = [linear(arrays, f"networks.policy_{name}") for name in (0, 1, "out")]
    units = config.recurrent_units
    remember = _gru(arrays, units) if units else None

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        x = normalise(observation)
        if remember is not None:
            memory = state[0]
            if is_first.any():
                memory = np.where(is_first[:, None], np.float32(0.0), memory)
            memory = remember(memory, x)
            state, x = (memory,), np.concatenate([memory, x], axis=-1)
        action = layers[2](np.tanh(layers[1](np.tanh(layers[0](x)))))
        return np.minimum(np.maximum(action, -1.0), 1.0), state

    return NumpyNetwork((units,) if units else (), step)


def _gru(arrays: Arrays, units: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The GRU of Haiku (Chung et al. 2014), on an embedded observation."""
    embed = linear(arrays, "networks.embed")
    input_w, bias = arrays["networks.gru.w_i"], arrays["networks.gru.b"]
    gates_w, candidate_w = np.split(arrays["networks.gru.w_h"], [2 * units], axis=1)

    def remember(memory: np.ndarray, x: np.ndarray) -> np.ndarray:
        seen = np.tanh(embed(x)) @ input_w + bias
        gates = sigmoid(seen[:, : 2 * units] + memory @ gates_w)
        update, reset = gates[:, :units], gates[:, units:]
        candidate = np.tanh(seen[:, 2 * units :] + (reset * memory) @ candidate_w)
        return (1.0 - update) * memory + update * candidate

    return remember


def array_shapes(config: PpoConfig, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs; the value network is published too."""
    units, memory = config.hidden_units, config.recurrent_units
    inputs = memory + observation_size
    shapes = moments_shapes(observation_size)
    if memory:
        shapes |= {
            **linear_shapes("networks.embed", observation_size, units),
            "networks.gru.w_i": (units, 3 * memory),
            "networks.gru.w_h": (memory, 3 * memory),
            "networks.gru.b": (3 * memory,),
        }
    shapes["networks.~.log_deviation"] = (action_size,)
    for tower, size in (("policy", action_size), ("value", 1)):
        shapes |= {
            **linear_shapes(f"networks.{tower}_0", inputs, units),
            **linear_shapes(f"networks.{tower}_1", units, units),
            **linear_shapes(f"networks.{tower}_out", units, size),
        }
    return shapes
