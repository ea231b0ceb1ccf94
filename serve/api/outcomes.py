"""What became of the last actions, as a client reports it with its next observations.

Nothing that the policy does depends on it: it is for recordings.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

MAX_CARS = 256
# Who chose an action; in binary frames and in memory it is the index + 1, and 0 for the answer.
DRIVERS = ("model", "hold", "fallback", "human")
HUMAN = DRIVERS.index("human") + 1
MAX_ACTION = 1024  # numbers in one action
LARGEST = 3e38  # of float32

Reward = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
LogProbability = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
_Unit = Annotated[float, Meta(ge=-1.0, le=1.0)]


class Executed(msgspec.Struct, forbid_unknown_fields=True):
    """What a car did in place of the last answer, and who chose it.

    `logp` is the log-probability density of the action, if the car drew it.
    """

    action: Annotated[list[_Unit], Meta(min_length=1, max_length=MAX_ACTION)]
    source: Literal["model", "hold", "fallback", "human"]
    logp: LogProbability | None = None


# The types of the fields of a request, each for all cars or with one entry for each.
RewardField = Reward | Annotated[list[Reward], Meta(min_length=1, max_length=MAX_CARS)] | UnsetType
EndField = bool | Annotated[list[bool], Meta(min_length=1, max_length=MAX_CARS)]
ExecutedField = (
    Executed | Annotated[list[Executed | None], Meta(min_length=1, max_length=MAX_CARS)] | UnsetType
)


class Executions(NamedTuple):
    """The actions that cars took in place of the answers."""

    driver: np.ndarray  # [N] uint8: index into DRIVERS + 1, or 0 for the answer
    action: np.ndarray  # [N, A] float32
    logp: np.ndarray  # [N] float32, NaN if unknown


class Outcome(NamedTuple):
    """What followed the last actions of N cars."""

    reward: np.ndarray | None  # [N] float32
    is_terminal: np.ndarray  # [N] bool: this observation is the last one, after a crash or a finish
    is_truncated: np.ndarray  # [N] bool: it is the last one, because of a limit
    executed: Executions | None = None


def outcome_of(
    reward: RewardField,
    terminated: EndField,
    truncated: EndField,
    executed: ExecutedField,
    is_first: np.ndarray,
) -> Outcome | None:
    """Returns the outcome that a request reports, or None if it reports none.

    Raises ValueError for a wrong number of entries or for unusable numbers.
    """
    if reward is UNSET and executed is UNSET and terminated is False and truncated is False:
        return None
    cars = len(is_first)
    outcome = Outcome(
        None if isinstance(reward, UnsetType) else _for_each("reward", reward, cars, np.float32),
        _for_each("terminated", terminated, cars, np.bool_),
        _for_each("truncated", truncated, cars, np.bool_),
        None if isinstance(executed, UnsetType) else _executions(executed, cars),
    )
    check_outcome(outcome, is_first)
    return outcome


def check_outcome(outcome: Outcome, is_first: np.ndarray) -> None:
    """Raises ValueError if an outcome holds unusable numbers, or ends an episode as it begins."""
    is_both = is_first & (outcome.is_terminal | outcome.is_truncated)
    if is_both.any():
        raise ValueError(
            f"car {int(is_both.argmax())} both begins and ends an episode: send `terminated` or "
            "`truncated` with the last observation of an episode, and `is_first` with the next one"
        )
    if outcome.reward is not None and not np.isfinite(outcome.reward).all():
        car = int((~np.isfinite(outcome.reward)).argmax())
        raise ValueError(f"the reward of car {car} is {outcome.reward[car]:g}: it must be finite")
    if outcome.executed is not None:
        _check_executions(outcome.executed)


def _check_executions(executed: Executions) -> None:
    is_reported = executed.driver > 0
    is_bad = is_reported & ~(np.abs(executed.action) <= 1.0).all(axis=1)
    if is_bad.any():
        car = int(is_bad.argmax())
        raise ValueError(
            f"the executed action of car {car} is {executed.action[car].tolist()}: each number "
            "must be from -1 to 1"
        )
    is_bad = is_reported & np.isinf(executed.logp)
    if is_bad.any():
        raise ValueError(
            f"the log-probability of car {int(is_bad.argmax())} is infinite: leave it out if it is "
            "unknown"
        )


def _for_each(
    name: str, value: float | Sequence[float], cars: int, kind: type[np.generic]
) -> np.ndarray:
    if not isinstance(value, Sequence):
        return np.full(cars, value, kind)
    _require_one_each(name, len(value), cars)
    return np.array(value, kind)


def _executions(value: Executed | Sequence[Executed | None], cars: int) -> Executions:
    each = [value] if isinstance(value, Executed) else value
    _require_one_each("executed", len(each), cars)
    action_size = next((len(one.action) for one in each if one is not None), 0)
    executed = no_executions(cars, action_size)
    for car, one in enumerate(each):
        if one is not None:
            executed.driver[car] = DRIVERS.index(one.source) + 1
            executed.action[car] = one.action
            if one.logp is not None:
                executed.logp[car] = one.logp
    return executed


def require_action_size(value: ExecutedField, action_size: int) -> None:
    """Raises ValueError unless every executed action has as many numbers as the model's actions."""
    if isinstance(value, UnsetType):
        return
    for one in [value] if isinstance(value, Executed) else value:
        if one is not None and len(one.action) != action_size:
            raise ValueError(
                f"an executed action has {len(one.action)} numbers: those of this model have "
                f"{action_size}"
            )


def no_executions(cars: int, action_size: int) -> Executions:
    """Returns the executions of cars that all did what the answer said."""
    return Executions(
        np.zeros(cars, np.uint8),
        np.zeros((cars, action_size), np.float32),
        np.full(cars, np.nan, np.float32),
    )


def _require_one_each(name: str, length: int, cars: int) -> None:
    if length != cars:
        raise ValueError(f"{name} has {length} entries for {cars} observations")
