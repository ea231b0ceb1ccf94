"""The cloned policy in NumPy, and the arrays that it needs."""

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.bc.settings import BcConfig
from rlcar.agents.numpy_network import Arrays, NumpyNetwork, without_memory
from rlcar.agents.offline_learning.numpy_policy import actor_shapes, make_actor


def make_numpy_network(config: BcConfig, arrays: Arrays) -> NumpyNetwork:
    """Builds the step of the policy: the tanh of the actor's output."""
    actor = make_actor(arrays)
    return without_memory(lambda observation: np.tanh(actor(observation)))


def array_shapes(config: BcConfig, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    return actor_shapes(config.hidden_units, observation_size, action_size)
