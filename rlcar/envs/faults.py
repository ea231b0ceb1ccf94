"""Checks what an environment returns against its declared spaces.

A FaultError contains the rest of a sentence that begins with "the environment <name>".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

# Learners square numbers and sum the squares over a whole training, and float32 ends at 3.4e38, so
# that larger numbers cannot be learned from. Larger bounds of a space count as missing.
LARGEST = 1e12


class FaultError(Exception):
    """An environment returned something invalid; the message says what, and what to do."""


def checked_reset(result: Any) -> Any:
    """Checks what `reset` returned; returns the observation."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise FaultError(f"returned {_kind(result)} from reset: it must return (observation, info)")
    return result[0]


def checked_step(result: Any) -> tuple[Any, float, bool, bool]:
    """Checks what `step` returned; returns observation, reward, terminated and truncated."""
    if not (isinstance(result, tuple) and len(result) == 5):
        raise FaultError(
            f"returned {_kind(result)} from step: it must return (observation, reward, "
            "terminated, truncated, info)"
        )
    observation, reward, terminated, truncated, _ = result
    return (
        observation,
        _checked_reward(reward),
        _checked_flag("terminated", terminated),
        _checked_flag("truncated", truncated),
    )


def checked_success(result: Any) -> bool | None:
    """Returns `info["is_success"]` of what `step` returned; None if the environment gives none."""
    info = result[4]
    if not isinstance(info, dict) or "is_success" not in info:
        return None
    return _checked_flag('info["is_success"]', info["is_success"])


def successes_of(said: Sequence[bool | None], has_ended: np.ndarray) -> np.ndarray | None:
    """Returns which of N episodes were successes, `[N]` bool; None if their environment is silent.

    `said` is what it said at the end of each episode. One that has not ended is no success, if the
    others show that the environment says so at all.
    """
    at_their_end = [one for one, is_over in zip(said, has_ended, strict=True) if is_over]
    if not at_their_end or None in at_their_end:
        return None
    return np.array([bool(one) for one in said])


def part_of(observation: Any, path: tuple) -> Any:
    """Returns the part of an observation at a path of names and indices."""
    part = observation
    for depth, name in enumerate(path):
        try:
            part = part[name]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            where = _named(path[: depth + 1])
            raise FaultError(
                f"gave {_kind(part)} where its space declares {where}: make observations match "
                "observation_space"
            ) from error
    return part


def flat_part(space: Any, value: Any, path: tuple) -> np.ndarray:
    """Returns a part of an observation as a float vector in Gymnasium's order.

    Raises FaultError for a shape or type that `space` does not declare, for values that are not
    finite, and for values beyond `LARGEST`.
    """
    array = _numbers(value, path)
    if isinstance(space, spaces.Discrete):
        return _checked_choice(space, array, path)
    if array.shape != space.shape:
        raise FaultError(
            f"gave {_named(path)} of shape {array.shape}, its space declares {space.shape}: make "
            "observations match observation_space"
        )
    if isinstance(space, spaces.MultiDiscrete):
        start = np.asarray(getattr(space, "start", 0))
        index = array - start
        if ((index < 0) | (index >= space.nvec) | (index != np.floor(index))).any():
            raise FaultError(
                f"gave {_named(path)} = {_short(array)}, which its space {space} does not contain"
            )
        return np.asarray(spaces.flatten(space, array.astype(space.dtype)))
    numbers = array.astype(np.float64).ravel()
    _check_size(numbers, array.shape, path)
    return numbers


def checked_image(space: Any, value: Any, path: tuple) -> np.ndarray:
    """Returns an image unchanged; raises FaultError for another shape or dtype than declared."""
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.shape != space.shape:
        raise FaultError(
            f"gave an image {_named(path)} of shape {array.shape} and dtype {array.dtype}, its "
            f"space declares {space.shape} and uint8: make observations match observation_space"
        )
    return array


def _checked_reward(value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "buif":
        raise FaultError(f"gave a reward that is not one number: {_short(value)}")
    reward = float(array.item())
    if not np.isfinite(reward):
        raise FaultError(f"gave a reward that is not finite: {reward}")
    if abs(reward) > LARGEST:
        raise FaultError(
            f"gave a reward of {reward:.6g}: numbers beyond {LARGEST:.0e} cannot be learned from. "
            "Scale it, for example with gymnasium.wrappers.TransformReward"
        )
    return reward


def _checked_flag(name: str, value: Any) -> bool:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "bui":
        raise FaultError(f"gave {name} = {_short(value)}: it must be True or False")
    return bool(array.item())


def _numbers(value: Any, path: tuple) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise FaultError(f"gave {_named(path)} that is no array: {error}") from error
    if array.dtype.kind not in "buif":
        raise FaultError(
            f"gave {_named(path)} of dtype {array.dtype}, which holds no numbers: make "
            "observations match observation_space"
        )
    return array


def _checked_choice(space: Any, array: np.ndarray, path: tuple) -> np.ndarray:
    index = float(array.item()) - float(space.start) if array.size == 1 else -1.0
    if not (0 <= index < space.n and index == int(index)):
        raise FaultError(
            f"gave {_named(path)} = {_short(array)}, which its space {space} does not contain"
        )
    one_hot = np.zeros(int(space.n))
    one_hot[int(index)] = 1.0
    return one_hot


def _check_size(numbers: np.ndarray, shape: tuple[int, ...], path: tuple) -> None:
    with np.errstate(invalid="ignore"):
        is_bad = ~(np.abs(numbers) <= LARGEST)
    if not is_bad.any():
        return
    at = int(np.flatnonzero(is_bad)[0])
    index = tuple(int(i) for i in np.unravel_index(at, shape)) if shape else ()
    entry = _named((*path, *index))
    if not np.isfinite(numbers[at]):
        raise FaultError(f"gave an observation that is not finite: {entry} is {numbers[at]}")
    raise FaultError(
        f"gave {entry} = {numbers[at]:.6g}: numbers beyond {LARGEST:.0e} cannot be learned from. "
        "Clip or scale this entry, for example with gymnasium.wrappers.TransformObservation"
    )


def _named(path: tuple) -> str:
    """Returns the Python expression of a part, for example observation['pose'][1]."""
    return "observation" + "".join(f"[{part!r}]" for part in path)


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} values"
    return f"a {type(value).__name__}"


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:100]
