"""The policy of conservative Q-learning in NumPy, and the arrays that it needs."""

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.numpy_network import Arrays, NumpyNetwork, without_memory
from rlcar.agents.offline_learning.numpy_policy import actor_shapes, make_actor


def make_numpy_network(config: CqlConfig, arrays: Arrays) -> NumpyNetwork:
    """Builds the step of the policy: the tanh of the mean."""
    actor = make_actor(arrays)

    def act(observation: np.ndarray) -> np.ndarray:
        output = actor(observation)
        return np.tanh(output[:, : output.shape[1] // 2])

    return without_memory(act)


def array_shapes(config: CqlConfig, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    return actor_shapes(config.hidden_units, observation_size, 2 * action_size)
