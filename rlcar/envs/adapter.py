"""Gymnasium's spaces as a `Spec`: one vector, one image, one action vector."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from rlcar.config import EnvironmentConfig
from rlcar.errors import ConfigError
from rlcar.types import Spec


class Adapter(NamedTuple):
    """How one environment's spaces become arrays, and an action becomes the environment's."""

    spec: Spec
    vector: Callable[[Any], np.ndarray]  # (observation) -> [O] float32
    image: Callable[[Any], np.ndarray | None]  # (observation) -> image_shape uint8
    action: Callable[[np.ndarray], Any]  # ([A] float32) -> what `step` takes


def make_environment(config: EnvironmentConfig) -> gymnasium.Env:
    """Makes one environment; raises ConfigError, with the reason, when that fails."""
    limit = (
        {} if config.time_limit_steps is None else {"max_episode_steps": config.time_limit_steps}
    )
    try:
        return gymnasium.make(config.id, disable_env_checker=True, **limit)
    except Exception as error:  # its own code runs, which may raise anything
        raise ConfigError(
            f"environment.id = {config.id!r}: {first_line(error)}; name it as module:id when its "
            "package has to be imported first, e.g. ale_py:ALE/Pong-v5"
        ) from error


def first_line(error: Exception) -> str:
    """What an environment's error says, of any length."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]


def make_adapter(config: EnvironmentConfig, env: gymnasium.Env) -> Adapter:
    """Reads an environment's spaces.

    Images (Box of uint8 with two or three axes) are resized to `image_size_px` and put side by
    side as channels; all else is flattened in the order of Gymnasium. Raises ConfigError for a
    space that is neither.
    """
    leaves = list(_leaves(env.observation_space, ()))
    images = [(path, space) for path, space in leaves if _is_image(space)]
    vectors = [(path, space) for path, space in leaves if not _is_image(space)]
    for path, space in vectors:
        if not isinstance(
            space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
        ):
            where = ".".join(map(str, path)) or "the observation"
            raise ConfigError(
                f"{config.id}: {where} is a {type(space).__name__}, which cannot be observed: "
                "there are Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of them"
            )
    size_px = config.image_size_px or _natural_size_px([space.shape for _, space in images])
    channels = sum(_channels(space) for _, space in images)

    def vector(observation: Any) -> np.ndarray:
        parts = [spaces.flatten(space, _at(observation, path)) for path, space in vectors]
        return np.concatenate([np.zeros(0), *parts]).astype(np.float32)

    def image(observation: Any) -> np.ndarray | None:
        if not images:
            return None
        parts = [_resized(np.asarray(_at(observation, path)), size_px) for path, _ in images]
        return np.concatenate(parts, axis=2)

    action_size, is_discrete, action = _actions(config.id, env.action_space)
    spec = Spec(
        sum(spaces.flatdim(space) for _, space in vectors),
        action_size,
        is_discrete,
        (size_px, size_px, channels) if images else None,
    )
    if not (spec.observation_size or images) or not action_size:
        raise ConfigError(
            f"{config.id}: it has {spec.observation_size} numbers to observe and {action_size} to "
            "act with: there must be some of both"
        )
    return Adapter(spec, vector, image, action)


def _actions(name: str, space: Any) -> tuple[int, bool, Callable[[np.ndarray], Any]]:
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return int(space.n), True, lambda action: start + int(np.argmax(action))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ConfigError(f"{name}: its actions have no finite bounds to scale [-1, 1] to")
        low, high = space.low, space.high

        def scaled(action: np.ndarray) -> np.ndarray:
            share = (np.clip(action, -1.0, 1.0).reshape(space.shape) + 1.0) / 2.0
            return (low + share * (high - low)).astype(space.dtype)

        return int(np.prod(space.shape)), False, scaled
    raise ConfigError(
        f"{name}: its actions are a {type(space).__name__}: there are Discrete, and Box of floats"
    )


def _leaves(space: Any, path: tuple) -> Any:
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, index))
    else:
        yield path, space


def _is_image(space: Any) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _channels(space: Any) -> int:
    return space.shape[2] if len(space.shape) == 3 else 1


def _natural_size_px(shapes: list[tuple[int, ...]]) -> int:
    sizes_px = {size_px for shape in shapes for size_px in shape[:2]}
    return sizes_px.pop() if sizes_px in ({16}, {32}, {64}) else 64


def _at(observation: Any, path: tuple) -> Any:
    for part in path:
        observation = observation[part]
    return observation


def _resized(image: np.ndarray, size_px: int) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ValueError(f"its image is {image.dtype}, its space says uint8")
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[:2] == (size_px, size_px):
        return image
    layers = [
        np.asarray(Image.fromarray(image[..., c]).resize((size_px, size_px), Image.Resampling.BOX))
        for c in range(image.shape[2])
    ]
    return np.stack(layers, axis=2)
