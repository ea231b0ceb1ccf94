"""The actors of SAC and TD3 in NumPy, and the arrays that they need."""

from rlcar.agents.algorithm import Shapes
from rlcar.agents.numpy_network import Arrays, Layer, mlp
from rlcar.agents.shapes import mlp_shapes


def make_actor(arrays: Arrays) -> Layer:
    """Returns the actor network, without the tanh of its action."""
    return mlp(arrays, [f"mlp/~/linear_{index}" for index in range(3)])


def actor_shapes(hidden_units: int, observation_size: int, outputs: int) -> Shapes:
    """Returns the shape of every array of the actor."""
    return mlp_shapes("mlp", [observation_size, hidden_units, hidden_units, outputs])
