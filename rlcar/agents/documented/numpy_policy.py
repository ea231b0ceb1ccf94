"""The plain documented policy in NumPy, and the arrays that it needs."""

import numpy as np

from rlcar.agents.algorithm import Shapes
from rlcar.agents.documented.settings import DocumentedConfig
from rlcar.agents.numpy_network import Arrays, NumpyNetwork, mlp, without_memory
from rlcar.agents.shapes import mlp_shapes


def make_numpy_network(config: DocumentedConfig, arrays: Arrays) -> NumpyNetwork:
    """Builds the step of the policy: encoder, actor and tanh."""
    encode = mlp(arrays, [f"networks.encoder/~/linear_{index}" for index in range(2)])
    act = mlp(arrays, [f"networks.actor/~/linear_{index}" for index in range(3)])
    return without_memory(lambda observation: np.tanh(act(encode(observation))))


def array_shapes(config: DocumentedConfig, observation_size: int, action_size: int) -> Shapes:
    """Returns the shape of every array that acting needs."""
    hidden, latent = config.hidden_units, config.latent_units
    return {
        "exploration_probability": (),
        **mlp_shapes("networks.encoder", [observation_size, hidden, latent]),
        **mlp_shapes("networks.actor", [latent, hidden, latent, action_size]),
    }
