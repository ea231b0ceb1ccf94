"""Names and shapes of a policy's arrays, as its config implies them.

Files that training writes have them by construction; files from elsewhere are checked against them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.agents import algorithm_of
from rlcar.agents.algorithm import Shapes
from rlcar.config import Config, parse_config
from rlcar.envs.schema import known_schema_of
from rlcar.errors import ConfigError, RegistryError
from rlcar.evaluation.statistics import impossible_moments


def check_arrays(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises RegistryError unless the arrays are finite float32 of the config's shapes.

    Policies of environments whose sizes the config does not imply are only checked for finiteness.
    """
    for key, array in arrays.items():
        if array.dtype != np.float32:
            raise RegistryError(f"{name}: array {key!r} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise RegistryError(f"{name}: array {key!r} has values that are not finite")
    impossible = impossible_moments(arrays)
    if impossible:
        raise RegistryError(f"{name}: {impossible}")
    try:
        parsed = parse_config(config)
        schema = known_schema_of(parsed)
    except ConfigError as error:
        raise RegistryError(f"{name} has a config that this rlcar cannot read: {error}") from error
    if schema is None:
        return
    wanted = policy_shapes(parsed, *map(len, schema))
    for key, shape in wanted.items():
        if key not in arrays:
            raise RegistryError(f"{name} has no array {key!r}, which its config requires")
        if arrays[key].shape != shape:
            raise RegistryError(
                f"{name}: array {key!r} has shape {list(arrays[key].shape)}, expected {list(shape)}"
            )
    surplus = next((key for key in arrays if key not in wanted), None)
    if surplus is not None:
        raise RegistryError(f"{name} has an array {surplus[:60]!r}, which its config does not have")


def policy_shapes(config: Config, observation_size: int = 6, action_size: int = 2) -> Shapes:
    """Returns the shape of every array of a policy; the default sizes are those of the race."""
    algorithm = algorithm_of(config)
    return algorithm.array_shapes(config.algorithm_settings, observation_size, action_size)
