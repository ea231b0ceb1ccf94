"""Turns every valid request into an action: the policy's, else the last one, else the safe one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serve.api.laps import LapOutcome, LapResult
from serve.api.outcomes import HUMAN
from serve.api.schema import (
    RACE_INTERFACE,
    ActAnswer,
    CheckedRequest,
    ModelInterface,
    ObservationBatch,
    Source,
)
from serve.delivery.counts import Fault
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower, ServedModel
from serve.policy.batching import SingleCarBatcher, act_without_memory
from serve.policy.drift_watch import DriftWatch
from serve.policy.policy import State
from serve.policy.rollout_arms import RolloutArms
from serve.policy.sessions import LastAnswer, Session, Sessions
from serve.recording.recorder import Answered, Driver, Recorder
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)
# Work that takes longer than this runs in the thread, so that other requests do not wait for it.
_INLINE_ACT_S = 0.0005
_INLINE_MIGRATION_S = 0.002


class ActionService:
    """Answers every valid request; owns the sessions and the thread for large batches."""

    def __init__(
        self,
        settings: ServeSettings,
        alias_follower: AliasFollower,
        metrics: ServerMetrics,
        clock: Callable[[], float] = time.monotonic,
        recorder: Recorder | None = None,
        drift: DriftWatch | None = None,
    ):
        self.alias_follower = alias_follower
        self._recorder, self._drift = recorder, drift
        self.metrics = metrics
        self.arms = RolloutArms(clock)
        self.sessions = Sessions(
            settings.session_cars,
            settings.session_expiry_s,
            settings.replay_steps,
            clock,
            settings.session_cars_per_owner,
        )
        self._deadline_ms = settings.deadline_ms
        self._clock = clock
        self._batcher = SingleCarBatcher()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlcar-act")

    def close(self) -> None:
        """Stops the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def now_s(self) -> float:
        """Returns the time on the clock that `received_s` is read from."""
        return self._clock()

    @property
    def interface(self) -> ModelInterface:
        """The observations that the current model accepts, and its actions."""
        current = self.alias_follower.current
        return RACE_INTERFACE if current is None else current.interface

    async def act(self, request: CheckedRequest, owner: str, received_s: float) -> ActAnswer:
        """Answers within the deadline.

        Raises RequestError if the session has another number of cars.
        """
        began_s = self._clock()  # the request is complete; its upload may have taken long
        deadline_s = received_s + (request.deadline_ms or self._deadline_ms) / 1e3
        if request.model_version is not None:
            self._refresh_if_behind(request, owner)
        model = self.alias_follower.current
        if model is None:
            return self._brake(request, None, received_s)
        session = None
        if request.session is not None:
            session, model = self._session_of(owner, request.session, request, model)
            if _is_repeated(session, request):
                return self._hold(request, session, received_s)
            session.step = request.step
            _note_person(session, request)
            model = self._model_for(session, model)
            session.versions.add(model.number)
        fault: Fault | None = None
        try:
            action = await self._compute(model, session, request.batch, deadline_s)
        except Exception as error:
            # Whatever is wrong with the policy, the car needs an action.
            self.metrics.policy_errors += 1
            _LOGGER.exception("version %d failed: the cars brake", model.number)
            action, fault = None, _fault_of(error)
        now_s = self._clock()
        is_late = fault is None and (action is None or now_s > deadline_s)
        if session is not None:
            self._count(model, session, fault, now_s - began_s)
        if action is None or is_late:
            return self._brake(request, model.number, received_s, session)
        if session is not None and request.session is not None:
            session.last = LastAnswer(action, received_s, model.number)
            if session.watched is not None and self._drift is not None:
                self._drift.note(session.watched, model.number, request, action)
            if self.arms.is_shadowed(request.session, session):
                self._shadow_soon(session, request.batch, action)
        times_s = (received_s, received_s)
        return self._answer(request, "model", model.number, times_s, action, session)

    def report(self, lap: LapOutcome, owner: str) -> LapResult:
        """Counts the lap of a session for the rollout; the result says why one is not counted."""
        session = self.sessions.peek(owner, lap.session)
        if session is None:
            return LapResult(
                "refused",
                f"there is no session {lap.session!r} in this server, or it has expired: report a "
                "lap before the session's requests have stopped for too long, and with the header "
                "x-session-id if there are several servers",
            )
        cars = slice(None)
        if lap.car is not None:
            car = int(lap.car)
            if car >= session.cars:
                return LapResult(
                    "refused",
                    f"session {lap.session!r} has {session.cars} cars, and `car` is {car}: the "
                    "first car is 0",
                )
            cars = slice(car, car + 1)
        had_person = lap.human or bool(session.had_person[cars].any())
        has_moved = bool(session.has_moved[cars].any())
        session.had_person[cars] = session.has_moved[cars] = False
        has_driven = session.use_step(cars)
        if had_person:
            return LapResult("ignored", "a person drove")
        if has_moved:
            return LapResult("ignored", "the session moved to another version during the lap")
        if not has_driven:
            return LapResult("ignored", "the session has not driven since its last lap")
        if self._drift is not None:
            self._drift.note_lap(session.model.number, lap.reward, lap.success)
        reason = self.arms.add_lap(session, lap.reward, lap.success)
        return LapResult("counted") if reason is None else LapResult("ignored", reason)

    def refuse(self, error: str, received_s: float) -> ActAnswer:
        """Returns the answer to an invalid request, which carries the safe action too."""
        current = self.alias_follower.current
        return ActAnswer(
            source="fallback",
            model_version=None if current is None else current.number,
            age_ms=round((self._clock() - received_s) * 1e3, 3),
            action=list(self.interface.safe_action),
            error=error,
        )

    def _count(
        self, model: ServedModel, session: Session, fault: Fault | None, took_s: float
    ) -> None:
        """Counts an answer for the rollout.

        Late is what misses the server's own deadline: a client may give as short a one as it likes.
        """
        if fault is None and took_s > self._deadline_ms / 1e3:
            fault = "late"
        latency_s = took_s if session.cars == 1 else None
        self.arms.add(model, fault, fault is not None, latency_s)

    def _shadow_soon(self, session: Session, batch: ObservationBatch, action: np.ndarray) -> None:
        """Lets the candidate act on the observation after the answer has been sent."""
        is_first = batch.is_first if session.steps > 1 else np.ones(session.cars, bool)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.arms.shadow, session, batch.observation, is_first, action)

    def _refresh_if_behind(self, request: CheckedRequest, owner: str) -> None:
        """Reads the alias if the client has had an answer of another version from another replica.

        The answer does not wait for it: the registry may be slow, and the current policy is good.
        """
        current = self.alias_follower.current
        if current is not None and request.model_version == current.number:
            return
        if request.session is None:
            return
        session = self.sessions.peek(owner, request.session)
        if session is not None and session.model.number == request.model_version:
            return
        self.alias_follower.refresh_soon()

    def _session_of(
        self, owner: str, name: str, request: CheckedRequest, stable: ServedModel
    ) -> tuple[Session, ServedModel]:
        """Returns the session of a request, and the version that is to drive it."""
        cars = len(request.batch.observation)
        model = self.arms.model_for(name, stable)
        session = self.sessions.find(owner, name, cars)
        told = self.arms.told_model(request.model_version, name, stable)
        if session is None or _was_elsewhere(session, told):
            session = self.sessions.open(owner, name, told or model, cars)
            is_told = told is not None and told is not model
            session.told_at_look = self.arms.looks if is_told else None
            if self._recorder is not None:
                session.recorded = self._recorder.begin(owner, name)
            if self._drift is not None:
                session.watched = self._drift.begin(cars)
        return session, session.model if self.arms.is_told(session) else model

    def _model_for(self, session: Session, model: ServedModel) -> ServedModel:
        """Returns the session's model; a session of an older version migrates with its memory.

        If the newer version fails on the session's observations, the older one keeps it.
        """
        if session.model is model or session.migration is not None:
            return session.model
        if session.failed_on is model and not self.arms.tries_again(session, self._clock()):
            return session.model
        if model.cost_of(session.cars) * len(session.history) < _INLINE_MIGRATION_S:
            with self._keeping_the_version(session, model):
                session.state = session.replay(model, list(session.history))
                session.take(model)
                self.metrics.migrations += 1
        else:
            session.migration = asyncio.create_task(self._migrate(session, model))
        return session.model

    async def _migrate(self, session: Session, model: ServedModel) -> None:
        """Replays the history in the thread; meanwhile the old version acts for the session."""
        loop = asyncio.get_running_loop()
        state: State | None = None
        done = -1  # observations of the session that `state` contains
        try:
            with self._keeping_the_version(session, model):
                while done < session.steps or session.is_acting:
                    oldest = session.steps - len(session.history)
                    if (
                        done < oldest
                    ):  # the first turn, or a new episode cleared the history meanwhile
                        state, done = None, oldest
                    if done == session.steps:
                        await asyncio.sleep(0.001)
                        continue
                    # One step at a time, so that batches of other requests run in between.
                    step = [session.history[done - oldest]]
                    state = await loop.run_in_executor(
                        self._thread, session.replay, model, step, state
                    )
                    done += 1
                session.state = model.policy.initial_state(session.cars) if state is None else state
                session.take(model)
                self.metrics.migrations += 1
        finally:
            session.migration = None

    @contextlib.contextmanager
    def _keeping_the_version(self, session: Session, model: ServedModel) -> Iterator[None]:
        """Turns a failure of the newer version into a session that stays with the older one."""
        try:
            yield
        except Exception as error:
            session.failed_on, session.failed_s = model, self._clock()
            self.metrics.policy_errors += 1
            self.arms.add(model, _fault_of(error), False, None)
            _LOGGER.exception(
                "version %d fails on what a session has observed: version %d keeps the session",
                model.number,
                session.model.number,
            )

    async def _compute(
        self,
        model: ServedModel,
        session: Session | None,
        batch: ObservationBatch,
        deadline_s: float,
    ) -> np.ndarray | None:
        """Returns the actions `[N, A]`, or None if the deadline passed first."""
        if self._clock() > deadline_s:
            return None
        cars = len(batch.observation)
        if model.cost_of(cars) < _INLINE_ACT_S:
            if session is None and cars == 1:
                return await self._batcher.act(model, batch.observation)
            return _act(model, session, batch)
        if session is not None:
            session.is_acting = True
        work = asyncio.get_running_loop().run_in_executor(self._thread, _act, model, session, batch)
        if session is not None:
            work.add_done_callback(lambda _: setattr(session, "is_acting", False))
        await asyncio.wait({work}, timeout=max(0.0, deadline_s - self._clock()))
        return work.result() if work.done() else None

    def _hold(self, request: CheckedRequest, session: Session, received_s: float) -> ActAnswer:
        last = session.last
        if last is None:
            return self._brake(request, session.model.number, received_s, session)
        times_s = (last.received_s, received_s)
        return self._answer(request, "hold", last.model_version, times_s, last.action, session)

    def _brake(
        self,
        request: CheckedRequest,
        version: int | None,
        received_s: float,
        session: Session | None = None,
    ) -> ActAnswer:
        cars = len(request.batch.observation)
        safe_action = np.array(self.interface.safe_action, np.float32)
        action = np.tile(safe_action, (cars, 1))
        times_s = (received_s, received_s)
        return self._answer(request, "fallback", version, times_s, action, session)

    def _answer(
        self,
        request: CheckedRequest,
        source: Source,
        version: int | None,
        times_s: tuple[float, float],
        action: np.ndarray,
        session: Session | None,
    ) -> ActAnswer:
        """`times_s`: when the observation behind the action arrived, and when the request did."""
        now_s = self._clock()
        rows = action.tolist()
        self.metrics.for_version(version).add(source, now_s - times_s[1], rows)
        if session is not None and session.recorded is not None:
            self._record(session, request, (version, source, action))
        return ActAnswer(
            source=source,
            model_version=version,
            age_ms=round((now_s - times_s[0]) * 1e3, 3),
            action=rows[0] if request.is_single else None,
            actions=None if request.is_single else rows,
            session_steps=None if session is None else session.steps,
        )

    def _record(
        self,
        session: Session,
        request: CheckedRequest,
        answer: tuple[int | None, Source, np.ndarray],
    ) -> None:
        version, source, action = answer
        assert self._recorder is not None
        assert session.recorded is not None
        number = session.model.number if version is None else version
        answered = Answered(number, source, action, self.arms.arm_of(number))
        self._recorder.note(session.recorded, request, _driver(session.model), answered)


def _driver(model: ServedModel) -> Driver:
    policy = model.policy
    return Driver(
        model.number, policy.version.metadata["config"], policy.observation_size, policy.action_size
    )


def _was_elsewhere(session: Session, told: ServedModel | None) -> bool:
    """Whether another server has driven a session since: its memory here is an old one."""
    return told is not None and told.number not in session.versions


def _note_person(session: Session, request: CheckedRequest) -> None:
    """Remembers the cars that a person drove in place of the last answer."""
    if request.outcome is not None and request.outcome.executed is not None:
        session.had_person |= request.outcome.executed.driver == HUMAN


def _is_repeated(session: Session, request: CheckedRequest) -> bool:
    """Whether the session is still acting on an observation, or has counted this one already."""
    if session.is_acting:
        return True
    is_old = request.step is not None and session.step is not None and request.step <= session.step
    return is_old and not bool(request.batch.is_first.all())


def _fault_of(error: Exception) -> Fault:
    return "non_finite" if isinstance(error, FloatingPointError) else "errors"


def _act(model: ServedModel, session: Session | None, batch: ObservationBatch) -> np.ndarray:
    if session is not None:
        return session.act(batch)
    return act_without_memory(model, batch.observation)
