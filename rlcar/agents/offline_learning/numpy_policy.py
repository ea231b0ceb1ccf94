"""Actors with normalised observations in NumPy, and the arrays that they need."""

from rlcar.agents.algorithm import Shapes
from rlcar.agents.numpy_network import Arrays, Layer, mlp, normaliser
from rlcar.agents.shapes import mlp_shapes, moments_shapes

_LAYERS = 3


def make_actor(arrays: Arrays) -> Layer:
    """Returns the actor of unscaled observations, without the tanh of its action."""
    normalise = normaliser(arrays)
    actor = mlp(arrays, [f"actor.mlp/~/linear_{index}" for index in range(_LAYERS)])
    return lambda observation: actor(normalise(observation))


def actor_shapes(hidden_units: int, observation_size: int, outputs: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    sizes = [observation_size, hidden_units, hidden_units, outputs]
    return moments_shapes(observation_size) | mlp_shapes("actor.mlp", sizes)
