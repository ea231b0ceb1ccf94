"""From a request to an action, always: the policy's in time, else the last one, else the brake."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serve.api.schema import (
    RACE_RANGE,
    ActAnswer,
    CheckedRequest,
    ObservationBatch,
    ObservationRange,
    Source,
)
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower, ServedModel
from serve.policy.batching import SingleCarBatcher, act_without_memory
from serve.policy.sessions import LastAnswer, Session, Sessions
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)
SAFE_ACTION = (0.0, -1.0)  # wheels straight, full brake
# What takes longer than this is done in the other thread, so that nobody else waits for it.
_INLINE_ACT_S = 0.0005
_INLINE_MIGRATION_S = 0.002


class ActionService:
    """Answers every request that is understood; owns the sessions and a thread for batches."""

    def __init__(
        self,
        settings: ServeSettings,
        alias_follower: AliasFollower,
        metrics: ServerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.alias_follower = alias_follower
        self.metrics = metrics
        self.sessions = Sessions(
            settings.session_cars,
            settings.session_expiry_s,
            settings.replay_steps,
            clock,
            settings.session_cars_per_owner,
        )
        self._deadline_ms = settings.deadline_ms
        self._clock = clock
        self._together = SingleCarBatcher()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlcar-act")

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def now_s(self) -> float:
        """The clock that `received_s` is read from."""
        return self._clock()

    @property
    def allowed(self) -> ObservationRange:
        """What an observation can be now."""
        return (
            RACE_RANGE
            if self.alias_follower.current is None
            else self.alias_follower.current.allowed
        )

    async def act(self, asked: CheckedRequest, owner: str, received_s: float) -> ActAnswer:
        """Answers within the deadline; raises RequestError for a session of other cars."""
        deadline_s = received_s + (asked.deadline_ms or self._deadline_ms) / 1e3
        if asked.model_version is not None:
            self._catch_up(asked, owner)
        model = self.alias_follower.current
        if model is None:
            return self._braking(asked, None, received_s)
        session = None
        if asked.session is not None:
            cars = len(asked.observed.observation)
            session = self.sessions.find(owner, asked.session, cars)
            if session is None:
                session = self.sessions.open(owner, asked.session, model, cars)
            if _is_repeated(session, asked):
                return self._holding(asked, session, received_s)
            session.step = asked.step
            model = self._model_for(session, model)
        try:
            action = await self._decide(model, session, asked.observed, deadline_s)
        except Exception:
            # Whatever is wrong with a policy, a car that asks must be told something.
            self.metrics.policy_errors += 1
            _LOGGER.exception("version %d failed: the cars brake", model.number)
            action = None
        if action is None or self._clock() > deadline_s:
            return self._braking(asked, model.number, received_s, session)
        if session is not None:
            session.last = LastAnswer(action, received_s, model.number)
        return self._answer(asked, "model", model.number, (received_s, received_s), action, session)

    def refused(self, error: str, received_s: float) -> ActAnswer:
        """What is said to a request that cannot be right: even then there is an action."""
        return ActAnswer(
            source="fallback",
            model_version=None
            if self.alias_follower.current is None
            else self.alias_follower.current.number,
            age_ms=round((self._clock() - received_s) * 1e3, 3),
            action=list(SAFE_ACTION),
            error=error,
        )

    def _catch_up(self, asked: CheckedRequest, owner: str) -> None:
        """Looks for the version that a car has heard of from another replica.

        The answer does not wait for that: the registry may be slow, and the current policy is good.
        """
        current = self.alias_follower.current
        if current is not None and asked.model_version == current.number:
            return
        if asked.session is None:
            return
        session = self.sessions.look(owner, asked.session)
        if session is not None and session.model.number == asked.model_version:
            return
        self.alias_follower.refresh_soon()

    def _model_for(self, session: Session, model: ServedModel) -> ServedModel:
        """The session's own version; a session of an older one moves on with its memory."""
        if session.model is model or session.migration is not None:
            return session.model
        self.metrics.migrations += 1
        if model.cost_of(session.cars) * len(session.history) < _INLINE_MIGRATION_S:
            session.state = session.replayed(model, list(session.history))
            session.model = model
        else:
            session.migration = asyncio.create_task(self._migrate(session, model))
        return session.model

    async def _migrate(self, session: Session, model: ServedModel) -> None:
        """Replays in the other thread; the session acts on with the old version meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            state, done = None, -1
            while done < session.steps or session.is_acting:
                oldest = session.steps - len(session.history)
                if done < oldest:  # the beginning, or an episode began anew meanwhile
                    state, done = None, oldest
                if done == session.steps:
                    await asyncio.sleep(0.001)
                    continue
                # Step by step, so that others' batches come between.
                one = [session.history[done - oldest]]
                state = await loop.run_in_executor(
                    self._thread, session.replayed, model, one, state
                )
                done += 1
            session.state = model.policy.initial_state(session.cars) if state is None else state
            session.model = model
        finally:
            session.migration = None

    async def _decide(
        self,
        model: ServedModel,
        session: Session | None,
        observed: ObservationBatch,
        deadline_s: float,
    ) -> np.ndarray | None:
        """Returns the actions `[N, A]`, or None when the deadline came first."""
        if self._clock() > deadline_s:
            return None
        cars = len(observed.observation)
        if model.cost_of(cars) < _INLINE_ACT_S:
            if session is None and cars == 1:
                return await self._together.act(model, observed.observation)
            return _acted(model, session, observed)
        if session is not None:
            session.is_acting = True
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, _acted, model, session, observed
        )
        if session is not None:
            work.add_done_callback(lambda _: setattr(session, "is_acting", False))
        await asyncio.wait({work}, timeout=max(0.0, deadline_s - self._clock()))
        return work.result() if work.done() else None

    def _holding(self, asked: CheckedRequest, session: Session, received_s: float) -> ActAnswer:
        last = session.last
        if last is None:
            return self._braking(asked, session.model.number, received_s, session)
        times_s = (last.received_s, received_s)
        return self._answer(asked, "hold", last.model_version, times_s, last.action, session)

    def _braking(
        self,
        asked: CheckedRequest,
        version: int | None,
        received_s: float,
        session: Session | None = None,
    ) -> ActAnswer:
        cars = len(asked.observed.observation)
        action = np.tile(np.array(SAFE_ACTION, np.float32), (cars, 1))
        return self._answer(asked, "fallback", version, (received_s, received_s), action, session)

    def _answer(
        self,
        asked: CheckedRequest,
        source: Source,
        version: int | None,
        times_s: tuple[float, float],
        action: np.ndarray,
        session: Session | None,
    ) -> ActAnswer:
        """`times_s`: when the observation behind the action came, and when the request did."""
        now_s = self._clock()
        rows = action.tolist()
        self.metrics.for_version(version).add(source, now_s - times_s[1], rows)
        return ActAnswer(
            source=source,
            model_version=version,
            age_ms=round((now_s - times_s[0]) * 1e3, 3),
            action=rows[0] if asked.is_one else None,
            actions=None if asked.is_one else rows,
            session_steps=None if session is None else session.steps,
        )


def _is_repeated(session: Session, asked: CheckedRequest) -> bool:
    """A session takes one observation at a time, and each of them once."""
    if session.is_acting:
        return True
    is_old = asked.step is not None and session.step is not None and asked.step <= session.step
    return is_old and not bool(asked.observed.is_first.all())


def _acted(model: ServedModel, session: Session | None, observed: ObservationBatch) -> np.ndarray:
    if session is not None:
        return session.act(observed)
    return act_without_memory(model, observed.observation)
