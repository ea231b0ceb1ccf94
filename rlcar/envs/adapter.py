"""Converts the spaces of a Gymnasium environment to one vector, one image and one action."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from rlcar.config import EnvironmentConfig
from rlcar.envs.actions import ToAction, action_mapping
from rlcar.envs.faults import checked_image, flat_part, part_of
from rlcar.envs.images import as_square, image_layout, natural_size_px
from rlcar.errors import ConfigError
from rlcar.types import Spec


class Adapter(NamedTuple):
    """The spec of an environment and the conversions of its observations and actions."""

    spec: Spec
    vector: Callable[[Any], np.ndarray]  # (observation) -> [O] float32
    image: Callable[[Any], np.ndarray | None]  # (observation) -> [*image_shape] uint8 or None
    action: ToAction


def make_adapter(config: EnvironmentConfig, env: gymnasium.Env) -> Adapter:
    """Makes the adapter for the spaces of an environment.

    Images, as `rlcar.envs.images` defines them, are resized to `image_size_px` and concatenated
    along their channels. Everything else is flattened in Gymnasium's order. Raises ConfigError for
    a space that is not supported. `vector` and `image` raise FaultError for observations that do
    not belong to the declared space.
    """
    leaves = [(path, space, image_layout(space)) for path, space in _leaves(env.observation_space)]
    images = [(path, space, layout) for path, space, layout in leaves if layout is not None]
    vectors = [(path, space) for path, space, layout in leaves if layout is None]
    for path, space in vectors:
        _require_vector(config.id, path, space)
    size_px = config.image_size_px or natural_size_px([layout for _, _, layout in images])

    def vector(observation: Any) -> np.ndarray:
        parts = [flat_part(space, part_of(observation, path), path) for path, space in vectors]
        return np.concatenate([np.zeros(0), *parts]).astype(np.float32)

    def image(observation: Any) -> np.ndarray | None:
        if not images:
            return None
        parts = [
            as_square(checked_image(space, part_of(observation, path), path), layout, size_px)
            for path, space, layout in images
        ]
        return np.concatenate(parts, axis=2)

    action_size, is_discrete, action = action_mapping(config, env.action_space)
    channels = sum(layout.channels for _, _, layout in images)
    spec = Spec(
        sum(spaces.flatdim(space) for _, space in vectors),
        action_size,
        is_discrete,
        (size_px, size_px, channels) if images else None,
    )
    if not (spec.observation_size or images) or not action_size:
        raise ConfigError(
            f"{config.id}: it has {spec.observation_size} numbers to observe and {action_size} to "
            "act with: an environment needs at least one of each"
        )
    return Adapter(spec, vector, image, action)


def _require_vector(name: str, path: tuple, space: Any) -> None:
    if not isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    ):
        where = ".".join(map(str, path)) or "the observation"
        raise ConfigError(
            f"{name}: {where} is a {type(space).__name__}, which cannot be observed: "
            "use Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them"
        )


def _leaves(space: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yields the path and the space of each part of a nested space."""
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, index))
    else:
        yield path, space
