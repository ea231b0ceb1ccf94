"""Binary frames of `/v1/drive`: little-endian, float32, no padding between cars."""

import struct

import numpy as np

from serve.api.outcomes import DRIVERS, Executions, Outcome, check_outcome
from serve.api.schema import (
    MAX_CARS,
    ActAnswer,
    CheckedRequest,
    ModelInterface,
    ObservationBatch,
    RequestError,
    check_range,
)

# A request: step, deadline in ms (0: the server's default), cars, flags. These follow, each for all
# cars: the float32 observations; with FLAGS_FOLLOW a byte that is 1 where an episode begins; with
# OUTCOME_FOLLOWS the float32 reward for the last action, and a byte with the sum of 1 where the
# observation is the last one after a crash or a finish, 2 where it is because of a limit, and 4
# where the reward is unknown; with
# EXECUTED_FOLLOWS the float32 actions that were executed in place of the last answers, their
# float32 log-probabilities (NaN if unknown), and a byte that is 0 where the answer was executed, or
# else the index into DRIVERS + 1.
REQUEST_HEAD = struct.Struct("<IHHB3x")
ALL_FIRST, FLAGS_FOLLOW, OUTCOME_FOLLOWS, EXECUTED_FOLLOWS = 1, 2, 4, 8
_FLAGS = ALL_FIRST | FLAGS_FOLLOW | OUTCOME_FOLLOWS | EXECUTED_FOLLOWS
_OUTCOME_BYTES = 4 + 1  # of a car
# An answer: step, model version (0: none), age in ms, session steps, cars, index into SOURCES. The
# float32 actions of the cars follow.
ANSWER_HEAD = struct.Struct("<IIfIHB5x")
SOURCES = ("model", "hold", "fallback")


def pack_request(
    batch: ObservationBatch, step: int, deadline_ms: int = 0, outcome: Outcome | None = None
) -> bytes:
    """Returns the frame of a request; with `deadline_ms=0` the server's default applies."""
    cars = len(batch.observation)
    flags = FLAGS_FOLLOW
    body = np.ascontiguousarray(batch.observation, "<f4").tobytes()
    body += batch.is_first.astype(np.uint8).tobytes()
    if outcome is not None:
        flags |= OUTCOME_FOLLOWS
        reward = np.zeros(cars) if outcome.reward is None else outcome.reward
        body += reward.astype("<f4").tobytes()
        ends = outcome.is_terminal + 2 * outcome.is_truncated + 4 * (outcome.reward is None)
        body += ends.astype(np.uint8).tobytes()
        if outcome.executed is not None:
            flags |= EXECUTED_FOLLOWS
            body += outcome.executed.action.astype("<f4").tobytes()
            body += outcome.executed.logp.astype("<f4").tobytes()
            body += outcome.executed.driver.astype(np.uint8).tobytes()
    return REQUEST_HEAD.pack(step, deadline_ms, cars, flags) + body


def unpack_request(frame: bytes, interface: ModelInterface, session: str) -> CheckedRequest:
    """Parses the frame of a request; raises RequestError unless it is valid."""
    if len(frame) < REQUEST_HEAD.size:
        raise RequestError(
            f"the frame has {len(frame)} bytes: its header alone has {REQUEST_HEAD.size}"
        )
    step, deadline_ms, cars, flags = REQUEST_HEAD.unpack_from(frame)
    if not 1 <= cars <= MAX_CARS or flags & ~_FLAGS or deadline_ms > 1000:
        raise RequestError(f"a frame for {cars} cars, flags {flags}, deadline {deadline_ms} ms")
    numbers = 4 * cars * len(interface.low)
    expected = (
        REQUEST_HEAD.size
        + numbers
        + cars
        * (
            bool(flags & FLAGS_FOLLOW)
            + bool(flags & OUTCOME_FOLLOWS) * _OUTCOME_BYTES
            + bool(flags & EXECUTED_FOLLOWS) * (4 * interface.action_size + 4 + 1)
        )
    )
    if len(frame) != expected:
        raise RequestError(
            f"the frame has {len(frame)} bytes: one for {cars} cars has {expected}, because an "
            f"observation of this model has {len(interface.low)} numbers and an action "
            f"{interface.action_size}"
        )
    flat = np.frombuffer(frame, "<f4", numbers // 4, REQUEST_HEAD.size)
    observation = flat.reshape(cars, -1)
    check_range(observation, interface)
    if flags & FLAGS_FOLLOW:
        is_first = np.frombuffer(frame, np.uint8, cars, REQUEST_HEAD.size + numbers) > 0
    else:
        is_first = np.full(cars, bool(flags & ALL_FIRST))
    outcome = None
    if flags & (OUTCOME_FOLLOWS | EXECUTED_FOLLOWS):
        start = REQUEST_HEAD.size + numbers + (cars if flags & FLAGS_FOLLOW else 0)
        outcome = _unpack_outcome(frame[start:], cars, flags, interface.action_size)
        try:
            check_outcome(outcome, is_first)
        except ValueError as error:
            raise RequestError(str(error)) from None
    return CheckedRequest(
        ObservationBatch(observation, is_first),
        False,
        session,
        step,
        float(deadline_ms) or None,
        None,
        outcome,
    )


def _unpack_outcome(part: bytes, cars: int, flags: int, action_size: int) -> Outcome:
    """Parses the part of a frame after the observations and the flags of beginnings."""
    start = 0
    reward, ends = None, np.zeros(cars, np.uint8)
    if flags & OUTCOME_FOLLOWS:
        reward = np.frombuffer(part, "<f4", cars, start)
        ends = np.frombuffer(part, np.uint8, cars, start + 4 * cars)
        if ends.max() > 7:
            raise RequestError(f"the end of an episode is {ends.max()}: it is 0 to 7")
        if (ends & 4).any():
            reward = None
        start += cars * _OUTCOME_BYTES
    executed = None
    if flags & EXECUTED_FOLLOWS:
        actions = np.frombuffer(part, "<f4", action_size * cars, start).reshape(cars, -1)
        logp = np.frombuffer(part, "<f4", cars, start + 4 * action_size * cars)
        driver = np.frombuffer(part, np.uint8, cars, start + 4 * (action_size + 1) * cars)
        executed = Executions(driver, actions, logp)
        if driver.max() > len(DRIVERS):
            raise RequestError(f"the executed action has the driver {driver.max()}: it is 0 to 4")
    return Outcome(reward, (ends & 1) > 0, (ends & 2) > 0, executed)


def pack_answer(step: int, answer: ActAnswer) -> bytes:
    """Returns the frame of an answer."""
    rows = answer.actions if answer.action is None else [answer.action]
    actions = np.array(rows, "<f4")
    head = ANSWER_HEAD.pack(
        step,
        answer.model_version or 0,
        answer.age_ms,
        answer.session_steps or 0,
        len(actions),
        SOURCES.index(answer.source),
    )
    return head + actions.tobytes()


def unpack_answer(frame: bytes) -> tuple[int, ActAnswer]:
    """Returns the step and the answer of a frame; the answer has `actions` even for one car."""
    step, version, age_ms, session_steps, cars, source = ANSWER_HEAD.unpack_from(frame)
    actions = np.frombuffer(frame, "<f4", offset=ANSWER_HEAD.size).reshape(cars, -1)
    return step, ActAnswer(
        source=SOURCES[source],  # type: ignore[arg-type]
        model_version=version or None,
        age_ms=age_ms,
        actions=actions.tolist(),
        session_steps=session_steps or None,
    )
