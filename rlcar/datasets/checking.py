"""Checks an episode before it is written, and converts its arrays to the types of the format."""

import math

import numpy as np

from rlcar.datasets.columns import ACTION_BOUND
from rlcar.datasets.episode import SOURCES, Episode, distinct
from rlcar.errors import DatasetError
from rlcar.types import Spec

_LARGEST_EPISODE_BYTES = 1 << 30


def checked(episode: Episode, spec: Spec, name: str) -> Episode:
    """Returns the episode with arrays of the right types; raises DatasetError if it is invalid.

    `name` is that of the episode in messages.
    """
    observation = _of_type(episode.observation, spec.image_shape is not None, name, "observation")
    action = _action(episode.action, spec, name)
    reward = _of_type(episode.reward, False, name, "reward")
    steps = len(reward)
    if reward.ndim != 1 or not steps:
        raise DatasetError(
            f"{name} has rewards of the shape {reward.shape}: give one for each of at least one "
            "step"
        )
    shape = spec.image_shape or (spec.observation_size,)
    _require_shape(observation, (steps + 1, *shape), name, "observations")
    _require_shape(
        action, (steps,) if spec.is_discrete else (steps, spec.action_size), name, "actions"
    )
    logp = episode.action_logp
    if logp is not None:
        logp = _of_type(logp, False, name, "log-probability")
        _require_shape(logp, (steps,), name, "log-probabilities")
        _require_finite(logp, name, "log-probability")
    _require_finite(reward, name, "reward")
    _require_finite(observation, name, "observation")
    if episode.is_terminal == episode.is_truncated:
        both = "is both terminal and truncated" if episode.is_terminal else "has no end"
        raise DatasetError(
            f"{name} {both}: set is_terminal for a crash or a finish, else is_truncated"
        )
    for names in (episode.policy, episode.source):
        if not isinstance(names, str):
            _require_shape(names, (steps,), name, "names of drivers")
    for source in distinct(episode.source):
        if source not in SOURCES:
            raise DatasetError(
                f"{name} has the source {source!r}: it must be one of {', '.join(SOURCES)}"
            )
    if math.prod(observation.shape) * observation.itemsize > _LARGEST_EPISODE_BYTES:
        raise DatasetError(
            f"{name} has {observation.nbytes:,} bytes of observations, more than the "
            f"{_LARGEST_EPISODE_BYTES:,} possible: cut it into several episodes"
        )
    return episode._replace(observation=observation, action=action, reward=reward, action_logp=logp)


def _require_finite(numbers: np.ndarray, name: str, what: str) -> None:
    """Raises DatasetError that names the first step whose numbers are not finite."""
    if numbers.dtype == np.uint8:
        return
    is_bad = ~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if is_bad.any():
        step = int(is_bad.argmax())
        value = np.asarray(numbers[step]).reshape(-1)
        bad = value[~np.isfinite(value)][0]
        raise DatasetError(f"{name}, step {step}: the {what} contains {bad}: remove the episode")


def _of_type(numbers: object, is_image: bool, name: str, what: str) -> np.ndarray:
    array = np.asarray(numbers)
    if is_image:
        if array.dtype != np.uint8:
            raise DatasetError(f"{name}: the images are {array.dtype}: they must be uint8")
        return array
    is_real = np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array)
    if not (is_real or array.dtype == bool):
        raise DatasetError(f"{name}: the {what} is {array.dtype}, not numbers")
    with np.errstate(over="ignore"):  # An infinity that results is refused later.
        return array.astype(np.float32)


def _action(numbers: object, spec: Spec, name: str) -> np.ndarray:
    array = np.asarray(numbers)
    if spec.is_discrete:
        if not np.issubdtype(array.dtype, np.integer):
            raise DatasetError(f"{name}: the actions are {array.dtype}: give the index of each")
        is_bad = (array < 0) | (array >= spec.action_size)
        limits = f"0 to {spec.action_size - 1}"
        converted = array.astype(np.int32)
    else:
        converted = _of_type(array, False, name, "action")
        _require_finite(converted, name, "action")
        is_bad = np.abs(converted) > ACTION_BOUND
        limits = "-1 to 1"
    if is_bad.any():
        step = int(np.argwhere(is_bad)[0, 0])
        value = array.reshape(len(array), -1)[step][is_bad.reshape(len(array), -1)[step]][0]
        raise DatasetError(
            f"{name}, step {step}: the action contains {value}, outside of {limits}: scale or "
            "clip the actions"
        )
    return converted


def _require_shape(array: np.ndarray, shape: tuple[int, ...], name: str, what: str) -> None:
    if array.shape != shape:
        raise DatasetError(f"{name} has {what} of the shape {array.shape} in place of {shape}")
