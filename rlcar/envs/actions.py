"""Maps the actions of a policy, in [-1, 1] or one-hot, to the action space of an environment."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from rlcar.config import EnvironmentConfig
from rlcar.envs.faults import LARGEST
from rlcar.errors import ConfigError, NonFiniteError

# (action [A] float32) -> the argument of `step`
ToAction = Callable[[np.ndarray], Any]


def action_mapping(config: EnvironmentConfig, space: Any) -> tuple[int, bool, ToAction]:
    """Returns the size of the policy's action, whether it is discrete, and the mapping.

    Raises ConfigError for an action space that is not supported.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return int(space.n), True, lambda action: start + int(np.argmax(_finite(action)))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = _bounds(config, space)

        def scaled(action: np.ndarray) -> np.ndarray:
            share = (np.clip(_finite(action), -1.0, 1.0).reshape(space.shape) + 1.0) / 2.0
            # float64, in which no bound overflows; clipped, because rounding may exceed a bound.
            value = np.clip(low + share.astype(np.float64) * (high - low), low, high)
            return value.astype(space.dtype)

        return int(np.prod(space.shape)), False, scaled
    kind = f"Box of {space.dtype}" if isinstance(space, spaces.Box) else type(space).__name__
    raise ConfigError(
        f"{config.id}: its actions are a {kind}, which is not supported: use Discrete or a Box of "
        "floats, for example with gymnasium.wrappers.TransformAction"
    )


def _bounds(config: EnvironmentConfig, space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds in float64; `environment.action_limit` replaces missing ones."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    limit = config.action_limit
    for sign, bound in ((-1.0, low), (1.0, high)):
        is_missing = ~(np.abs(bound) <= LARGEST)  # also for NaN and infinities
        if not is_missing.any():
            continue
        if limit is None:
            index = [int(i) for i in np.argwhere(is_missing)[0]]
            raise ConfigError(
                f"{config.id}: entry {index} of its actions has no finite bounds to scale "
                f"[-1, 1] to (low {space.low[tuple(index)]}, high {space.high[tuple(index)]}): "
                "set environment.action_limit to the largest action that makes sense, or declare "
                f"bounds within {LARGEST:.0e}"
            )
        bound[is_missing] = sign * limit
    if (low > high).any():
        index = [int(i) for i in np.argwhere(low > high)[0]]
        raise ConfigError(
            f"{config.id}: entry {index} of its actions would lie between {low[tuple(index)]} and "
            f"{high[tuple(index)]}: raise environment.action_limit, which is {limit}"
        )
    return low, high


def _finite(action: np.ndarray) -> np.ndarray:
    if not np.isfinite(action).all():
        raise NonFiniteError(f"the policy chose the action {action.tolist()}")
    return action
