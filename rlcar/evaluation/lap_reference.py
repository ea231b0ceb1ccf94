"""The reference distributions of a version: how its policy drove the laps of its evaluation.

A server compares what it serves with them; see `serve.observing.drift`. Consecutive steps resemble
each other, so the unit is the lap, never the step. A channel is one number of the observation or
of the action.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import ConfigError

REFERENCE_FILE = "reference.json"  # of a run; in a version it is a part of the report
FORMAT = 1
BINS = 10  # of a channel's histogram
# Every lap of an evaluation starts from rest, and a car that goes on driving does not.
SETTLING_STEPS = 32
FEWEST_STEPS = 8  # of a lap
FEWEST_LAPS, MOST_LAPS = 24, 256  # of a reference; of more laps it keeps these many
# Differences of a channel below this, of a range of 1 or 2, are of no importance.
TOLERANCE = 0.005
_LARGEST = 1e6  # of any number in a reference


class LapStatistics(NamedTuple):
    """What is kept of each of M laps."""

    mean: np.ndarray  # [M, C]
    deviation: np.ndarray  # [M, C], the standard deviation within the lap
    share: np.ndarray  # [M, C, BINS], of the lap's steps in each bin of the reference's histogram


class Reference(NamedTuple):
    """The laps of an evaluation; `edges` are the inner edges of the bins, at most `BINS - 1`."""

    laps: LapStatistics
    edges: tuple[np.ndarray, ...]  # one for each channel, rising
    observation_size: int
    longest_steps: int  # length of the longest lap
    reward: np.ndarray  # [N], sum of each lap, short laps included
    is_lap: np.ndarray  # [N] bool: lapped, and neither crashed nor ran out of time


def make_lap_reference(
    observation: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    steps: np.ndarray,
    is_lap: np.ndarray,
) -> Reference:
    """Computes the reference of N laps of `steps` `[N]` each.

    `observation` `[T, N, O]`, `action` `[T, N, A]` and `reward` `[T, N]` are read up to the end of
    each lap. Raises ConfigError if no lap is long enough.
    """
    channels = np.concatenate([observation, action], axis=2).astype(np.float64)
    laps = [settled(channels[: int(steps[car]), car]) for car in range(len(steps))]
    laps = [lap for lap in laps if len(lap) >= FEWEST_STEPS][:MOST_LAPS]
    if not laps:
        raise ConfigError(f"no lap has {FEWEST_STEPS} steps: there is nothing to compare with")
    edges = tuple(_edges(column) for column in np.concatenate(laps).T)
    rewards = [float(reward[: int(steps[car]), car].sum()) for car in range(len(steps))]
    return Reference(
        laps=lap_statistics(laps, edges),
        edges=edges,
        observation_size=observation.shape[2],
        longest_steps=int(steps.max()),
        reward=np.array(rewards[:MOST_LAPS]),
        is_lap=np.asarray(is_lap, bool)[:MOST_LAPS],
    )


def settled(steps: np.ndarray) -> np.ndarray:
    """Returns a lap `[T, C]` without its start, or all of one that ends before it has settled."""
    return steps[SETTLING_STEPS:] if len(steps) >= SETTLING_STEPS + FEWEST_STEPS else steps


def lap_statistics(laps: Sequence[np.ndarray], edges: Sequence[np.ndarray]) -> LapStatistics:
    """Computes the statistics of laps `[T, C]` each."""
    share = np.zeros((len(laps), len(edges), BINS))
    for index, lap in enumerate(laps):
        for channel, inner in enumerate(edges):
            bins = np.searchsorted(inner, lap[:, channel], side="right")
            share[index, channel] = np.bincount(bins, minlength=BINS) / len(lap)
    return LapStatistics(
        np.array([lap.mean(axis=0) for lap in laps]),
        np.array([lap.std(axis=0) for lap in laps]),
        share,
    )


def reference_tree(reference: Reference) -> dict[str, Any]:
    """Returns the reference as JSON, with five digits of each number."""
    return {
        "format": FORMAT,
        "observation_size": reference.observation_size,
        "longest_steps": reference.longest_steps,
        "edges": [_digits(edges) for edges in reference.edges],
        "mean": _digits(reference.laps.mean),
        "deviation": _digits(reference.laps.deviation),
        "share": _digits(reference.laps.share),
        "reward": _digits(reference.reward),
        "is_lap": reference.is_lap.tolist(),
    }


def parse_reference(tree: Any, observation_size: int, action_size: int) -> Reference:
    """Reads a reference for a policy with these sizes.

    Raises ConfigError with one sentence if it is damaged, holds too few laps, or fits another
    policy.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError("the reference is no JSON object: evaluate and publish the run again")
    if tree.get("format") != FORMAT:
        raise ConfigError(
            f"the reference has the format {str(tree.get('format'))[:20]!r}, and this rlcar reads "
            f"{FORMAT}: evaluate and publish the run again"
        )
    if tree.get("observation_size") != observation_size:
        raise ConfigError(
            f"the reference is about observations of {str(tree.get('observation_size'))[:20]} "
            f"numbers, and the policy takes {observation_size}: evaluate and publish the run again"
        )
    try:
        reference = _parsed(tree, observation_size, observation_size + action_size)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = str(error)[:100] if isinstance(error, ValueError) else "a part is missing"
        raise ConfigError(
            f"the reference is damaged ({reason}): evaluate and publish the run again"
        ) from None
    if len(reference.laps.mean) < FEWEST_LAPS:
        raise ConfigError(
            f"the reference holds {len(reference.laps.mean)} laps, and {FEWEST_LAPS} are needed: "
            "evaluate the run on more tracks and publish it again"
        )
    return reference


def _parsed(tree: Mapping[str, Any], observation_size: int, channels: int) -> Reference:
    mean = _array(tree, "mean", (None, channels))
    laps = LapStatistics(
        mean,
        _array(tree, "deviation", mean.shape),
        _array(tree, "share", (*mean.shape, BINS)),
    )
    if laps.share.min(initial=0.0) < 0.0 or laps.deviation.min(initial=0.0) < 0.0:
        raise ValueError("a share or a deviation is negative")
    edges = tuple(np.array(one, np.float64) for one in tree["edges"])
    if len(edges) != channels:
        raise ValueError(f"it has edges of {len(edges)} channels, not of {channels}")
    for one in edges:
        is_rising = one.ndim == 1 and np.isfinite(one).all() and (np.diff(one) > 0).all()
        if not is_rising or not 1 <= len(one) < BINS:
            raise ValueError("the edges of a histogram do not rise")
    reward = _array(tree, "reward", (None,))
    longest = tree["longest_steps"]
    if type(longest) is not int or not 1 <= longest <= _LARGEST:
        raise ValueError(f"its longest lap has {str(longest)[:20]} steps")
    is_lap = _array(tree, "is_lap", reward.shape)
    return Reference(laps, edges, observation_size, longest, reward, is_lap.astype(bool))


def _array(tree: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Reads finite numbers; None in `shape` is any length above zero, up to `MOST_LAPS`."""
    array = np.array(tree[name], np.float64)
    is_shape = len(shape) == array.ndim and all(
        size == wanted or (wanted is None and 0 < size <= MOST_LAPS)
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not is_shape:
        raise ValueError(f"{name} has the shape {list(array.shape)}")
    if not (np.abs(array) <= _LARGEST).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array


def _edges(values: np.ndarray) -> np.ndarray:
    """Returns inner edges between equal shares of the values.

    Many values may be equal, as at the limit of a sensor. An edge lies a little below such a value,
    so that rounding cannot move it into the bin below.
    """
    quantiles = np.quantile(values, np.linspace(0.0, 1.0, BINS + 1)[1:-1])
    edges = [float(quantiles[0]) - TOLERANCE / 2]
    for quantile in quantiles[1:] - TOLERANCE / 2:
        if quantile - edges[-1] >= TOLERANCE:
            edges.append(float(quantile))
    return np.array(_digits(np.array(edges)))


def _digits(array: np.ndarray) -> Any:
    """Returns nested lists of numbers with five significant digits."""
    if array.ndim == 0:
        number = float(array)
        assert math.isfinite(number), number
        return float(f"{number:.5g}")
    return [_digits(part) for part in array]
