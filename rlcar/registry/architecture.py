"""Names and shapes of a policy's arrays, as its config implies them.

Files that training writes have them by construction; files from elsewhere are checked against them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.agents import algorithm_of
from rlcar.agents.algorithm import Shapes
from rlcar.config import Config, parse_config
from rlcar.config.schema import has_discrete_actions
from rlcar.envs.schema import known_schema_of
from rlcar.errors import ConfigError, RegistryError
from rlcar.evaluation.statistics import impossible_moments
from rlcar.types import Spec


def check_arrays(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises RegistryError unless the arrays are finite float32 of the shapes in the metadata.

    Policies that may see images, or choose among discrete actions, are only checked for finiteness.
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
        config = parse_config(metadata["config"])
    except ConfigError as error:
        raise RegistryError(f"{name} has a config that this rlcar cannot read: {error}") from error
    observation, action = metadata["observation"], metadata["action"]
    may_see_images = algorithm_of(config).supports_images and known_schema_of(config) is None
    if may_see_images or has_discrete_actions(action):
        return
    wanted = policy_shapes(config, Spec(len(observation), len(action)))
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


def what_is_not_numeric(
    metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray], config: Config
) -> str | None:
    """Returns what keeps a version from having a policy in NumPy: images or discrete actions.

    None means that its observations are numbers and its actions continuous.
    """
    observation, action = metadata["observation"], metadata["action"]
    if has_discrete_actions(action):
        return f"with {len(action)} discrete actions"
    wanted = policy_shapes(config, Spec(len(observation), len(action)))
    if not observation or {name: array.shape for name, array in arrays.items()} != wanted:
        return "with images"
    return None


def policy_shapes(config: Config, spec: Spec) -> Shapes:
    """Returns the shape of every array of a policy for numeric observations and actions."""
    algorithm = algorithm_of(config)
    settings = config.algorithm_settings
    return algorithm.array_shapes(settings, spec.observation_size, spec.action_size)
