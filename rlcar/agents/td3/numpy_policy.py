"""The TD3 policy in NumPy, and the arrays that it needs."""

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.numpy_network import Arrays, NumpyNetwork, without_memory
from rlcar.agents.q_learning.numpy_policy import actor_shapes, make_actor
from rlcar.agents.td3.settings import Td3Config


def make_numpy_network(config: Td3Config, arrays: Arrays) -> NumpyNetwork:
    """Builds the step of the policy: the tanh of the actor's output."""
    actor = make_actor(arrays)
    return without_memory(lambda observation: np.tanh(actor(observation)))


def array_shapes(config: Td3Config, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    return actor_shapes(config.hidden_units, observation_size, action_size)
