"""What the policy remembers of each car: recurrent states, each pinned to a model version."""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from serve.api.schema import ObservationBatch, RequestError
from serve.policy.alias_follower import ServedModel


class LastAnswer(NamedTuple):
    """What a session's cars were told last, and when the observation behind it came."""

    action: np.ndarray  # [N, A]
    received_s: float
    model_version: int


class Session:
    """N cars that are driven together; `state` belongs to `model` and to nobody else."""

    def __init__(self, model: ServedModel, cars: int, replay_steps: int):
        self.model = model
        self.cars = cars
        self.state: Any = model.policy.initial_state(cars)
        self.steps = 0  # observations in `state`
        self.step: int | None = None  # the client's number of the last one
        self.last: LastAnswer | None = None
        self.seen_s = 0.0
        self.is_acting = False
        self.migration: asyncio.Task[None] | None = None
        self.history: deque[ObservationBatch] = deque(maxlen=replay_steps)

    def act(self, observed: ObservationBatch) -> np.ndarray:
        """Takes in one observation and returns the actions `[N, A]`."""
        first = observed.is_first if self.steps else np.ones(self.cars, bool)
        self.steps += 1
        if first.all():
            self.history.clear()
        self.history.append(ObservationBatch(observed.observation, first))
        action, self.state = self.model.policy.act(self.state, observed.observation, first)
        return action

    def replayed(
        self, model: ServedModel, history: list[ObservationBatch], state: Any = None
    ) -> Any:
        """The state that another model has after the same observations, or these after `state`."""
        is_beginning = state is None
        if is_beginning:
            state = model.policy.initial_state(self.cars)
        for index, observed in enumerate(history):
            # The oldest of them is the beginning of all that this model will know.
            is_oldest = is_beginning and index == 0
            first = np.ones(self.cars, bool) if is_oldest else observed.is_first
            _, state = model.policy.act(state, observed.observation, first)
        return state


class Sessions:
    """All sessions, each its owner's; those that nobody asked for past their time are forgotten.

    Each owner may have so many cars remembered, and makes room for new ones with its own sessions,
    the longest unseen first. When all owners together have too many, whoever has most makes room:
    an owner with few cars loses none to another who takes as much as there is.
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
        # The longest unseen first: all of them, and each owner's names.
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._names: dict[str, OrderedDict[str, None]] = {}
        self._cars_of: Counter[str] = Counter()
        self.cars = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def look(self, owner: str, name: str) -> Session | None:
        """The session of that name, without counting as asking for it."""
        return self._sessions.get((owner, name))

    def find(self, owner: str, name: str, cars: int) -> Session | None:
        """The owner's session of that name; raises RequestError for another number of cars."""
        self._forget()
        session = self._sessions.get((owner, name))
        if session is None:
            return None
        if session.cars != cars:
            raise RequestError(
                f"session {name} drives {session.cars} cars, and {cars} observations came", 409
            )
        session.seen_s = self._clock()
        self._sessions.move_to_end((owner, name))
        self._names[owner].move_to_end(name)
        return session

    def open(self, owner: str, name: str, model: ServedModel, cars: int) -> Session:
        """Begins a session, pinned to `model`."""
        session = Session(model, cars, self._replay_steps)
        session.seen_s = self._clock()
        self.close(owner, name)
        self._sessions[owner, name] = session
        self._names.setdefault(owner, OrderedDict())[name] = None
        self._cars_of[owner] += cars
        self.cars += cars
        while self._cars_of[owner] > self._owner_limit:
            self._close_oldest(owner)
        while self.cars > self._limit:
            self._close_oldest(self._richest(owner))
        return session

    def close(self, owner: str, name: str) -> None:
        """Forgets a session, if it is there."""
        session = self._sessions.pop((owner, name), None)
        if session is None:
            return
        self.cars -= session.cars
        self._cars_of[owner] -= session.cars
        del self._names[owner][name]
        if not self._names[owner]:
            del self._names[owner], self._cars_of[owner]

    def _richest(self, asking: str) -> str:
        """The owner of most cars: among equals the one that asks, as long as it keeps one."""
        most = max(self._cars_of.values())  # an instant, even for thousands of owners
        if self._cars_of[asking] == most and len(self._names[asking]) > 1:
            return asking
        return next(owner for owner, cars in self._cars_of.items() if cars == most)

    def _close_oldest(self, owner: str) -> None:
        self.close(owner, next(iter(self._names[owner])))

    def _forget(self) -> None:
        limit_s = self._clock() - self._expiry_s
        while self._sessions:
            key, oldest = next(iter(self._sessions.items()))
            if oldest.seen_s >= limit_s:
                return
            self.close(*key)
