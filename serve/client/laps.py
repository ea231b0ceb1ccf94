"""Laps that the caller of the SDK reports for the KPIs of a rollout."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from serve.api.laps import MAX_LAPS, LapOutcome, LapResult
from serve.api.outcomes import MAX_CARS
from serve.api.schema import LARGEST_REWARD
from serve.client.address import ServerError

One = TypeVar("One")


class Lap(NamedTuple):
    """A lap or an episode: its total reward, whether it was a success, or both.

    With `human`, a person drove, so that it is not counted; the server also knows that from the
    actions that `act` reported as `executed`. `car` is the index of the car in a session of
    several. `session` is the name of another session of the same token, by default the client's.
    """

    reward: float | None = None
    success: bool | None = None
    human: bool = False
    car: int | None = None
    session: str | None = None


class LapReportError(ServerError):
    """A report of laps has ended early: the server cannot be reached, or has refused a request.

    `results` says what became of the laps that were reported before, the first ones of the list.
    Only the laps after them need another report. If no answer came, the server may have counted the
    next up to 256 of those all the same, and would count them again.
    """

    def __init__(self, error: str, results: Sequence[LapResult] = ()):
        before = f"; the first {len(results)} laps were reported before" if results else ""
        super().__init__(f"{error}{before}")
        self.results = list(results)


def make_laps(laps: Sequence[Lap], session: str) -> list[LapOutcome]:
    """Returns laps as they are sent; raises ValueError for one that no server accepts."""
    return [_checked(index, lap, session) for index, lap in enumerate(laps)]


def in_requests(laps: Sequence[One]) -> Iterator[Sequence[One]]:
    """Yields as many laps as one request holds."""
    for first in range(0, len(laps), MAX_LAPS):
        yield laps[first : first + MAX_LAPS]


def _checked(index: int, lap: Lap, session: str) -> LapOutcome:
    reward = None if lap.reward is None else float(lap.reward)
    if reward is None and lap.success is None:
        raise ValueError(f"lap {index} says nothing: give its reward, its success or both")
    if reward is not None and (not math.isfinite(reward) or abs(reward) > LARGEST_REWARD):
        raise ValueError(
            f"the reward of lap {index} is {reward:g}: it must be from {-LARGEST_REWARD:g} to "
            f"{LARGEST_REWARD:g}"
        )
    if lap.car is not None and not 0 <= lap.car < MAX_CARS:
        raise ValueError(
            f"the car of lap {index} is {lap.car}: it must be from 0 to {MAX_CARS - 1}"
        )
    success = None if lap.success is None else bool(lap.success)
    car = None if lap.car is None else int(lap.car)
    return LapOutcome(lap.session or session, reward, success, bool(lap.human), car)
