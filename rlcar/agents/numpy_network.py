"""Policies in NumPy, which servers run: the type, and layers that several algorithms share.

A call with one observation takes tens of microseconds, and nothing has to be compiled.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple

import numpy as np

from rlcar.agents.algorithm import Settings, Shapes
from rlcar.agents.observation_scaling import NORMALISER

Arrays = Mapping[str, np.ndarray]
State = tuple[np.ndarray, ...]  # each [B, ...]; empty for a policy without memory
Layer = Callable[[np.ndarray], np.ndarray]


class NumpyNetwork(NamedTuple):
    """One step of a policy, as its JAX policy takes it without exploration."""

    widths: tuple[int, ...]  # of the state's arrays
    # (state, observation [B, O], is_first [B] bool) -> (action [B, A], state)
    step: Callable[[State, np.ndarray, np.ndarray], tuple[np.ndarray, State]]
    latent_shape: tuple[int, int] | None = None  # S, K of the state's second array


class NumpyPolicyParts(NamedTuple, Generic[Settings]):
    """The functions by which an algorithm's policy runs without JAX."""

    # Builds the policy for numeric observations and continuous actions, whose numbers the arrays
    # determine; raises KeyError if an array is missing.
    make_numpy_network: Callable[[Settings, Arrays], NumpyNetwork]
    # (settings, observation size, action size) -> the shape of each array that acting needs.
    array_shapes: Callable[[Settings, int, int], Shapes]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns the logistic function of `x`, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def linear(arrays: Arrays, name: str) -> Layer:
    """Returns the `hk.Linear` of that name."""
    weight, bias = arrays[f"{name}.w"], arrays[f"{name}.b"]
    return lambda x: x @ weight + bias


def mlp(arrays: Arrays, names: Sequence[str]) -> Layer:
    """Returns linear layers with ReLU between them, as in `hk.nets.MLP`."""
    layers = [linear(arrays, name) for name in names]

    def apply(x: np.ndarray) -> np.ndarray:
        for layer in layers[:-1]:
            x = np.maximum(layer(x), 0.0)
        return layers[-1](x)

    return apply


def normaliser(arrays: Arrays) -> Layer:
    """Returns the normalisation of observations by `moments.*`, as in `rlcar.agents.normaliser`."""
    mean = arrays["moments.mean"]
    inverse = 1.0 / np.sqrt(arrays["moments.variance"] + np.float32(NORMALISER["epsilon"]))
    limit = np.float32(NORMALISER["limit"])
    return lambda observation: np.clip((observation - mean) * inverse, -limit, limit)


def without_memory(apply: Layer) -> NumpyNetwork:
    """Returns the network whose action is a function of the present observation alone."""

    def step(
        state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        return apply(observation), state

    return NumpyNetwork((), step)
