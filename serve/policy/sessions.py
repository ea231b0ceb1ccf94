"""The server's memory of each car: recurrent states, each pinned to a model version."""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from serve.api.schema import ObservationBatch, RequestError
from serve.observing.drift_laps import WatchedCars
from serve.policy.alias_follower import ServedModel
from serve.policy.policy import State
from serve.recording.recorder import RecordedSession


class LastAnswer(NamedTuple):
    """The last actions of a session, and when the observation behind them arrived."""

    action: np.ndarray  # [N, A]
    received_s: float
    model_version: int


class ShadowMemory:
    """What the candidate of a rollout remembers of a session that it does not drive."""

    def __init__(self, rollout: str, state: State):
        self.rollout, self.state = rollout, state
        self.actions: tuple[np.ndarray, np.ndarray] | None = None  # the last: its own and the sent


class Session:
    """N cars that are driven together; `state` belongs to `model` and to no other version."""

    def __init__(self, model: ServedModel, cars: int, replay_steps: int):
        self.model = model
        self.cars = cars
        self.state: State = model.policy.initial_state(cars)
        self.steps = 0  # observations that `state` contains
        self.step: int | None = None  # the client's number of the last observation
        self.last: LastAnswer | None = None
        self.used_s = 0.0  # when the last request came
        self.is_acting = False
        self.migration: asyncio.Task[None] | None = None
        self.failed_on: ServedModel | None = None  # newer version that failed on the history
        self.failed_s = 0.0  # and when
        self.history: deque[ObservationBatch] = deque(maxlen=replay_steps)
        self.shadow: ShadowMemory | None = None
        # The look at the journal at which it came from another server with a version of its own.
        self.told_at_look: int | None = None
        self.versions = {model.number}  # those that have driven it here
        # By car, since its last lap that was reported: whether the session moved to another
        # version, and whether a person drove.
        self.has_moved, self.had_person = np.zeros(cars, bool), np.zeros(cars, bool)
        self.laps = ("", 0)  # those that were reported, and in which rollout
        # By car: the steps at its last lap, and how many of those before it no lap has used.
        self._lap_at, self._unused_steps = np.zeros(cars, np.int64), np.zeros(cars, np.int64)
        self.recorded: RecordedSession | None = None  # None: it was not chosen for recording
        self.watched: WatchedCars | None = None  # None: its driving is not watched for drift

    def act(self, batch: ObservationBatch) -> np.ndarray:
        """Adds one observation to the memory and returns the actions `[N, A]`."""
        is_first = batch.is_first if self.steps else np.ones(self.cars, bool)
        self.steps += 1
        if is_first.all():
            self.history.clear()
        self.history.append(ObservationBatch(batch.observation, is_first))
        action, self.state = self.model.policy.act(self.state, batch.observation, is_first)
        return action

    def use_step(self, cars: slice) -> bool:
        """Uses a step that one of the cars has driven for a lap; returns whether there is one.

        Laps that are reported together need as many steps since the laps before them.
        """
        driven = self.steps - self._lap_at[cars]
        unused = np.where(driven > 0, driven, self._unused_steps[cars])
        car = int(unused.argmax())
        is_left = bool(unused[car] > 0)
        unused[car] -= is_left
        self._lap_at[cars], self._unused_steps[cars] = self.steps, unused
        return is_left

    def take(self, model: ServedModel) -> None:
        """Goes on with another version, whose state is set already."""
        self.model = model
        self.has_moved[:] = True

    def replay(
        self, model: ServedModel, history: list[ObservationBatch], state: State | None = None
    ) -> State:
        """Returns the state of another model after these observations.

        Without `state` the oldest observation counts as the first of an episode: this model has
        no earlier one.
        """
        is_beginning = state is None
        if state is None:
            state = model.policy.initial_state(self.cars)
        for index, batch in enumerate(history):
            is_oldest = is_beginning and index == 0
            is_first = np.ones(self.cars, bool) if is_oldest else batch.is_first
            _, state = model.policy.act(state, batch.observation, is_first)
        return state


class Sessions:
    """All sessions by owner and name; sessions without a request for too long expire.

    Each owner has a limited number of cars in memory, and a new session of an owner above the
    limit evicts that owner's least recently used sessions. When all owners together exceed the
    total limit, the owner with most cars loses sessions, so an owner with few cars loses none to
    an owner who opens as many as possible.
    """

    def __init__(
        self,
        cars: int,
        expiry_s: float,
        replay_steps: int,
        clock: Callable[[], float] = time.monotonic,
        cars_per_owner: int | None = None,
    ):
        """`cars` bounds the sum over all sessions, `cars_per_owner` that over one owner's."""
        self._limit, self._expiry_s, self._replay_steps = cars, expiry_s, replay_steps
        self._owner_limit = cars if cars_per_owner is None else min(cars, cars_per_owner)
        self._clock = clock
        # Both in the order of use, the least recently used first.
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._names: dict[str, OrderedDict[str, None]] = {}  # by owner
        self._cars_of: Counter[str] = Counter()
        self.cars = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def peek(self, owner: str, name: str) -> Session | None:
        """Returns the session of that name without counting as a use of it."""
        return self._sessions.get((owner, name))

    def find(self, owner: str, name: str, cars: int) -> Session | None:
        """Returns the owner's session of that name, or None.

        Raises RequestError if it has another number of cars.
        """
        self._expire()
        session = self._sessions.get((owner, name))
        if session is None:
            return None
        if session.cars != cars:
            raise RequestError(
                f"session {name} drives {session.cars} cars, and {cars} observations came", 409
            )
        session.used_s = self._clock()
        self._sessions.move_to_end((owner, name))
        self._names[owner].move_to_end(name)
        return session

    def open(self, owner: str, name: str, model: ServedModel, cars: int) -> Session:
        """Begins a session, pinned to `model`."""
        session = Session(model, cars, self._replay_steps)
        session.used_s = self._clock()
        self.close(owner, name)
        self._sessions[owner, name] = session
        self._names.setdefault(owner, OrderedDict())[name] = None
        self._cars_of[owner] += cars
        self.cars += cars
        while self._cars_of[owner] > self._owner_limit:
            self._evict_from(owner)
        while self.cars > self._limit:
            self._evict_from(self._largest_owner(owner))
        return session

    def close(self, owner: str, name: str) -> None:
        """Forgets a session, if there is one of that name."""
        session = self._sessions.pop((owner, name), None)
        if session is None:
            return
        self.cars -= session.cars
        self._cars_of[owner] -= session.cars
        del self._names[owner][name]
        if not self._names[owner]:
            del self._names[owner], self._cars_of[owner]

    def _largest_owner(self, asking: str) -> str:
        """Returns the owner with most cars; in a tie the asking one, if it keeps a session."""
        most = max(self._cars_of.values())  # fast even for thousands of owners
        if self._cars_of[asking] == most and len(self._names[asking]) > 1:
            return asking
        return next(owner for owner, cars in self._cars_of.items() if cars == most)

    def _evict_from(self, owner: str) -> None:
        """Closes the owner's least recently used session."""
        self.close(owner, next(iter(self._names[owner])))

    def _expire(self) -> None:
        limit_s = self._clock() - self._expiry_s
        while self._sessions:
            key, oldest = next(iter(self._sessions.items()))
            if oldest.used_s >= limit_s:
                return
            self.close(*key)
