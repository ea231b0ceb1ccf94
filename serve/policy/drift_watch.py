"""Watches the served versions for drift, in a thread; an answer only puts a step into a queue."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from rlcar.config import parse_config
from rlcar.errors import ConfigError, RegistryUnavailableError, UserError
from rlcar.evaluation.lap_reference import parse_reference
from rlcar.registry import Registry
from rlcar.registry.model_file import parse_json
from serve.api.outcomes import DRIVERS
from serve.api.schema import CheckedRequest
from serve.observing.drift_laps import ServedStep, WatchedCars
from serve.observing.drift_metrics import drift_metrics
from serve.observing.drift_state import DriftReport, VersionDrift

_LOGGER = logging.getLogger(__name__)
_INTERVAL_S = 0.5
_PAUSE_S = 5.0  # of a car, after which its lap is left out and holds back no others
_RETRY_S = 30.0  # before a registry that could not be read is read again
MOST_CARS = 256  # at once; more of them would say nothing new
MOST_VERSIONS = 4  # the ones that acted last
_MOST_WAITING = 20_000  # requests
_HUMAN = DRIVERS.index("human") + 1
NOT_A_RACE = (
    "version {} acts in {}: drift is watched only for policies of the race, whose reference "
    "distributions are of laps"
)
NO_REFERENCE = (
    "version {} holds no reference distributions, so its drift is not watched: evaluate its run "
    "and publish it again"
)


class _Waiting(NamedTuple):
    """An answer in the queue."""

    watched: WatchedCars
    version: int
    request: CheckedRequest
    action: np.ndarray  # [N, A]


class _Begun(NamedTuple):
    """A session that began."""

    watched: WatchedCars


class _Reported(NamedTuple):
    """A lap that a car reported."""

    version: int
    reward: float | None
    success: bool | None


class DriftWatch(Collector):
    """Compares the driving of each version with its reference; the arms of a rollout apart."""

    def __init__(self, registry: Registry, expiry_s: float):
        self.reports: dict[int, DriftReport] = {}  # replaced as a whole, so any thread may read it
        self.lost_requests = 0
        self.unwatched_cars = 0  # of sessions that began while too many were watched
        self._registry, self._expiry_s = registry, expiry_s
        self._queue: deque[_Begun | _Waiting | _Reported] = deque()
        # Each is written by one thread only: cars of sessions that began and that were forgotten.
        self._begun_cars = self._forgotten_cars = 0
        self._sessions: set[WatchedCars] = set()
        # The newest last. None: a version without detection, whose sentence is in `_problems`.
        self._versions: dict[int, VersionDrift | None] = {}
        self._problems: dict[int, str] = {}
        self._retry_s: dict[int, float] = {}
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rlcar-drift", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stops the thread; blocks for a moment."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    @property
    def _watched_cars(self) -> int:
        return self._begun_cars - self._forgotten_cars

    def begin(self, cars: int) -> WatchedCars | None:
        """Returns what watches the cars of a new session, or None above the largest number.

        Each one stays counted until it has not acted for as long as a session lives.
        """
        if self._watched_cars + cars > MOST_CARS or len(self._queue) >= _MOST_WAITING:
            self.unwatched_cars += cars
            return None
        self._begun_cars += cars
        watched = WatchedCars(cars)
        # The thread forgets it later, even if it never acts.
        self._queue.append(_Begun(watched))
        return watched

    def note(
        self, watched: WatchedCars, version: int, request: CheckedRequest, action: np.ndarray
    ) -> None:
        """Takes a version's answer `[N, A]` to a request; costs less than a microsecond."""
        if len(self._queue) < _MOST_WAITING:
            self._queue.append(_Waiting(watched, version, request, action))
        else:
            self.lost_requests += 1

    def note_lap(self, version: int, reward: float | None, success: bool | None) -> None:
        """Takes the report of a lap that one version drove alone."""
        if len(self._queue) < _MOST_WAITING:
            self._queue.append(_Reported(version, reward, success))

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        return drift_metrics(self.reports.values(), self.lost_requests, self.unwatched_cars)

    def turn(self, now_s: float, unix_s: float) -> None:
        """Takes what waits, and examines the windows that are due."""
        for _ in range(len(self._queue)):
            waiting = self._queue.popleft()
            if isinstance(waiting, _Begun):
                waiting.watched.used_s = now_s
                self._sessions.add(waiting.watched)
            elif isinstance(waiting, _Reported):
                version = self._version(waiting.version, now_s)
                if version is not None:
                    version.reported.add(waiting.reward, waiting.success)
            else:
                self._add(waiting, now_s)
        for watched in list(self._sessions):
            idle_s = now_s - watched.used_s
            if idle_s > _PAUSE_S:
                self._leave(watched)
            if idle_s > self._expiry_s:
                self._sessions.discard(watched)
                self._forgotten_cars += watched.cars
                watched.is_forgotten = True
        for version in self._versions.values():
            sentence = None if version is None else version.turn(now_s, unix_s)
            if sentence is not None:
                _LOGGER.warning("%s", sentence)
        self.reports = {
            number: DriftReport(number, self._problems[number])
            if version is None
            else version.report()
            for number, version in self._versions.items()
        }

    def _run(self) -> None:
        has_failed = False
        while not self._is_stopping.wait(_INTERVAL_S):
            try:
                self.turn(time.monotonic(), time.time())
                has_failed = False
            except Exception:
                if not has_failed:
                    _LOGGER.exception("drift is not watched for a moment, and the server goes on")
                has_failed = True

    def _add(self, waiting: _Waiting, now_s: float) -> None:
        watched = waiting.watched
        if watched.is_forgotten and not self._is_known_again(watched):
            return
        if waiting.version != watched.version:
            self._leave(watched)
            watched.version = waiting.version
        watched.used_s = now_s
        version = self._version(waiting.version, now_s)
        if version is None:
            return
        batch, outcome = waiting.request.batch, waiting.request.outcome
        is_over = is_by_person = None
        if outcome is not None:
            is_over = outcome.is_terminal | outcome.is_truncated
            if outcome.executed is not None:
                is_by_person = outcome.executed.driver == _HUMAN
        version.cutter.add(
            watched,
            ServedStep(batch.observation, batch.is_first, waiting.action, is_over, is_by_person),
        )

    def _is_known_again(self, watched: WatchedCars) -> bool:
        """Watches cars again that act after a long time without, if there is room for them."""
        if self._watched_cars + watched.cars > MOST_CARS:
            return False
        self._forgotten_cars -= watched.cars
        watched.is_forgotten = False
        self._sessions.add(watched)
        return True

    def _leave(self, watched: WatchedCars) -> None:
        """Leaves out the laps that cars are driving, as another version drives on, or none."""
        version = None if watched.version is None else self._versions.get(watched.version)
        if version is not None:
            version.cutter.leave(watched)
        watched.laps = [None] * watched.cars

    def _version(self, number: int, now_s: float) -> VersionDrift | None:
        """Returns what watches a version, with its reference read from the registry once."""
        if number in self._versions and self._retry_s.get(number, np.inf) > now_s:
            self._versions[number] = self._versions.pop(number)
            return self._versions[number]
        self._retry_s.pop(number, None)
        try:
            version = self._load(number)
        except RegistryUnavailableError as error:
            version = None
            self._retry_s[number] = now_s + _RETRY_S
            self._note_problem(number, f"the reference of version {number} is missing: {error}")
        except UserError as error:
            version = None
            self._note_problem(number, f"the drift of version {number} is not watched: {error}")
        self._versions.pop(number, None)
        self._versions[number] = version
        while len(self._versions) > MOST_VERSIONS:
            self._drop(next(iter(self._versions)))
        return version

    def _drop(self, number: int) -> None:
        """Forgets a version that has not acted for long."""
        for watched in self._sessions:
            if watched.version == number:
                self._leave(watched)
                watched.version = None
        del self._versions[number]
        self._problems.pop(number, None)
        self._retry_s.pop(number, None)

    def _load(self, number: int) -> VersionDrift | None:
        """Reads a reference; None if the version has none. Raises UserError for a damaged one."""
        version = self._registry.version(number)
        data = self._registry.report(version)
        try:
            report = {} if data is None else parse_json(data, "its report")
        except ValueError as error:
            raise ConfigError(f"{error}: evaluate and publish the run again") from None
        config = parse_config(version.metadata["config"])
        if not config.is_race:
            self._note_problem(number, NOT_A_RACE.format(number, config.world_label))
            return None
        if not isinstance(report, dict) or "reference" not in report:
            self._note_problem(number, NO_REFERENCE.format(number))
            return None
        observation, action = version.metadata["observation"], version.metadata["action"]
        reference = parse_reference(report["reference"], len(observation), len(action))
        names = tuple(str(entry["name"]) for entry in (*observation, *action))
        return VersionDrift(number, reference, names)

    def _note_problem(self, number: int, sentence: str) -> None:
        """Logs a problem once."""
        if self._problems.get(number) != sentence:
            _LOGGER.warning("%s", sentence)
        self._problems[number] = sentence
