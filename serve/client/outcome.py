"""What the caller of the SDK tells of the last actions, for a recording."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from serve.api.outcomes import DRIVERS, Executions, Outcome, no_executions
from serve.client.replies import Reply

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class OutcomeOptions(TypedDict, total=False):
    """The arguments of `act` about the last actions, each for all cars or with one for each.

    `reward` is what the last actions earned. `terminated` and `truncated` say that this observation
    is the last one of its episode, because of a crash or a finish, or because of a limit.
    `executed` are actions `[A]` or `[N, A]` that the cars took in place of the last reply, with NaN
    for a car that did what the reply says. `executed_by` says who chose them, a person by default,
    and `executed_logp` is the log-probability density of actions that were drawn.
    """

    reward: "ArrayLike"
    terminated: "ArrayLike"
    truncated: "ArrayLike"
    executed: "ArrayLike"
    executed_by: Literal["model", "hold", "fallback", "human"]
    executed_logp: "ArrayLike"


def make_outcome(options: Mapping[str, Any], cars: int) -> Outcome | None:
    """Returns the outcome of N cars, or None without any; raises ValueError or TypeError."""
    if not options:
        return None
    unknown = options.keys() - OutcomeOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"act has no argument {min(unknown)!r}")
    executed = None
    if options.get("executed") is not None:
        executed = _executions(options, cars)
    reward = options.get("reward")
    return Outcome(
        None if reward is None else _for_each(reward, cars, np.float32),
        _for_each(options.get("terminated", False), cars, np.bool_),
        _for_each(options.get("truncated", False), cars, np.bool_),
        executed,
    )


def with_own(outcome: Outcome, own: Reply) -> Outcome:
    """Adds what the SDK chose itself because no answer came, for cars without another action."""
    cars = len(outcome.is_terminal)
    size = own.action.shape[1]
    if len(own.action) != cars:
        return outcome
    if outcome.executed is not None and outcome.executed.action.shape[1] != size:
        return outcome
    executed = outcome.executed or no_executions(cars, size)
    is_own = executed.driver == 0
    driver = np.where(is_own, DRIVERS.index(own.source) + 1, executed.driver).astype(np.uint8)
    action = np.where(is_own[:, None], own.action, executed.action)
    return outcome._replace(executed=Executions(driver, action, executed.logp))


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """Returns the fields of a JSON request."""
    fields: dict[str, Any] = {
        "terminated": outcome.is_terminal.tolist(),
        "truncated": outcome.is_truncated.tolist(),
    }
    if outcome.reward is not None:
        fields["reward"] = outcome.reward.astype(float).tolist()
    if outcome.executed is not None:
        fields["executed"] = [
            _executed(*row) if row[0] else None
            for row in zip(*(field.tolist() for field in outcome.executed), strict=True)
        ]
    return fields


def _executed(driver: int, action: list[float], logp: float) -> dict[str, Any]:
    known = {} if np.isnan(logp) else {"logp": logp}
    return {"action": action, "source": DRIVERS[driver - 1], **known}


def _executions(options: Mapping[str, Any], cars: int) -> Executions:
    action = np.atleast_2d(np.asarray(options["executed"], np.float32))
    if action.ndim != 2 or len(action) != cars or not action.size:
        raise ValueError(
            f"executed has the shape {list(action.shape)}: give the numbers of an action for each "
            f"of {cars} cars"
        )
    source = options.get("executed_by", "human")
    if source not in DRIVERS:
        raise ValueError(f"executed_by is {source!r}: it must be one of {', '.join(DRIVERS)}")
    is_answer = np.asarray(np.isnan(action).all(axis=1))
    driver = np.where(is_answer, 0, DRIVERS.index(source) + 1).astype(np.uint8)
    logp = options.get("executed_logp", np.nan)
    return Executions(
        driver, np.where(is_answer[:, None], 0.0, action), _for_each(logp, cars, np.float32)
    )


def _for_each(value: "ArrayLike", cars: int, kind: type[np.generic]) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(value, kind), (cars,)))
