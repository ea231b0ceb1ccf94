"""Cuts the steps of served cars into laps, and hands them out in the order in which they began.

The order matters. Of cars that start together, those with the shortest laps finish first, so the
laps that ended last are no fair sample of the laps that are driven.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from rlcar.evaluation.lap_reference import (
    FEWEST_STEPS,
    LapStatistics,
    Reference,
    lap_statistics,
    settled,
)

STEPS_PER_S = 20.0  # of the cars in an evaluation
MOST_DURATIONS = 3  # of the longest lap, after which a lap holds back no others
MOST_LAPS = 2048  # that are driven or wait for one that began before them


class ServedStep(NamedTuple):
    """The answer of a version to one request of a session with N cars."""

    observation: np.ndarray  # [N, O] float32
    is_first: np.ndarray  # [N] bool
    action: np.ndarray  # [N, A] float32
    is_over: np.ndarray | None  # [N] bool: the observation is the last one of its episode
    is_by_person: np.ndarray | None  # [N] bool: a person chose the action before


class _Lap:
    """A lap that is being driven; a spoiled one will be left out."""

    def __init__(self, number: int, begun_s: float, *, from_start: bool):
        self.number, self.begun_s = number, begun_s
        self.from_start = from_start  # False: the car was already driving
        self.is_spoiled = False
        self.steps = 0
        self.rows: list[np.ndarray] = []  # [O + A] each; none of a spoiled lap

    def add(self, row: np.ndarray) -> None:
        """Adds one step."""
        self.steps += 1
        if not self.is_spoiled:
            self.rows.append(row)

    def spoil(self) -> None:
        """Forgets the steps."""
        self.is_spoiled = True
        self.rows.clear()


class WatchedCars:
    """The cars of one session; `laps` holds the one that each of them drives."""

    def __init__(self, cars: int):
        self.cars = cars
        self.laps: list[_Lap | None] = [None] * cars
        self.version: int | None = None  # that drove the last step
        self.used_s = 0.0
        self.is_forgotten = False


class LapCutter:
    """Collects the laps that one version drives.

    A lap ends with its episode. A car that never reports an end is cut after as many steps as the
    longest lap of the reference has. Laps of which a person drove a part are left out, and so are
    those that began with another version or before the server knew the car.

    The oldest lap that is still driven holds back those that began after it. It is left out if it
    takes longer than `longest_s`, or if more than `MOST_LAPS` laps wait.
    """

    def __init__(self, reference: Reference):
        self._edges, self._longest_steps = reference.edges, reference.longest_steps
        self.longest_s = MOST_DURATIONS * reference.longest_steps / STEPS_PER_S
        self._next_number = 0
        # By number: the lap while it is driven, and an empty list for one that is left out.
        self._order: OrderedDict[int, list[LapStatistics] | _Lap] = OrderedDict()

    def add(self, watched: WatchedCars, step: ServedStep) -> None:
        """Adds one step of each car of a session, at the time `watched.used_s`.

        A number that is not finite spoils its lap.
        """
        rows = np.concatenate([step.observation, step.action], axis=1)
        is_finite = np.isfinite(rows).all(axis=1)
        for car in range(watched.cars):
            lap = watched.laps[car]
            if lap is not None and step.is_by_person is not None and step.is_by_person[car]:
                self._spoil(lap)
            is_first = bool(step.is_first[car])
            is_over = step.is_over is not None and bool(step.is_over[car])
            if is_first or is_over:
                self._end(watched, car)
            if is_over:
                continue  # nothing follows from the last observation of an episode
            lap = watched.laps[car]
            if lap is None:
                lap = self._begin(watched, car, from_start=is_first)
                if not is_first:
                    self._spoil(lap)
            elif lap.steps >= self._longest_steps:
                self._end(watched, car)
                lap = self._begin(watched, car, from_start=False)
            if not is_finite[car]:
                self._spoil(lap)
            lap.add(rows[car])

    def leave(self, watched: WatchedCars) -> None:
        """Leaves out the laps that these cars are driving."""
        for car, lap in enumerate(watched.laps):
            if lap is not None:
                self._spoil(lap)
                watched.laps[car] = None

    def take(self, now_s: float) -> list[LapStatistics]:
        """Returns the laps that have ended, each once, before the first that is still driven."""
        taken: list[LapStatistics] = []
        while self._order:
            number, done = next(iter(self._order.items()))
            if isinstance(done, _Lap):
                is_slow = now_s - done.begun_s > self.longest_s
                if not is_slow and len(self._order) <= MOST_LAPS:
                    break
                self._spoil(done)
            else:
                taken += done
                del self._order[number]
        return taken

    def _begin(self, watched: WatchedCars, car: int, *, from_start: bool) -> _Lap:
        lap = watched.laps[car] = _Lap(self._next_number, watched.used_s, from_start=from_start)
        self._next_number += 1
        self._order[lap.number] = lap
        return lap

    def _spoil(self, lap: _Lap) -> None:
        """Leaves a lap out, so that it holds back no others."""
        if not lap.is_spoiled:
            lap.spoil()
            self._order[lap.number] = []

    def _end(self, watched: WatchedCars, car: int) -> None:
        lap = watched.laps[car]
        watched.laps[car] = None
        if lap is not None and not lap.is_spoiled:
            self._order[lap.number] = self._statistics(lap)

    def _statistics(self, lap: _Lap) -> list[LapStatistics]:
        if len(lap.rows) < FEWEST_STEPS:
            return []
        steps = np.array(lap.rows, np.float64)
        return [lap_statistics([settled(steps) if lap.from_start else steps], self._edges)]
