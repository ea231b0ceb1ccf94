"""Binary frames of `/v1/drive`: little-endian, float32, no padding between cars."""

import struct

import numpy as np

from serve.api.schema import (
    MAX_CARS,
    ActAnswer,
    CheckedRequest,
    ObservationBatch,
    ObservationRange,
    RequestError,
    check_range,
)

# A binary request: step, deadline in ms (0: the server's), cars, flags; then the cars' float32
# observations, and with FLAGS_FOLLOW one byte a car that says whether its episode begins.
REQUEST_HEAD = struct.Struct("<IHHB3x")
ALL_FIRST, FLAGS_FOLLOW = 1, 2
# A binary answer: step, model version (0: none), age in ms, session steps, cars, source; then the
# cars' float32 actions.
ANSWER_HEAD = struct.Struct("<IIfIHB5x")
SOURCES = ("model", "hold", "fallback")


def pack_request(observed: ObservationBatch, step: int, deadline_ms: int = 0) -> bytes:
    """The frame of a request; `deadline_ms` 0 leaves it to the server."""
    cars = len(observed.observation)
    head = REQUEST_HEAD.pack(step, deadline_ms, cars, FLAGS_FOLLOW)
    body = np.ascontiguousarray(observed.observation, "<f4").tobytes()
    return head + body + observed.is_first.astype(np.uint8).tobytes()


def unpack_request(frame: bytes, allowed: ObservationRange, session: str) -> CheckedRequest:
    """Takes a frame apart; raises RequestError unless all of it is as it says."""
    if len(frame) < REQUEST_HEAD.size:
        raise RequestError(f"a frame of {len(frame)} bytes: its head alone has {REQUEST_HEAD.size}")
    step, deadline_ms, cars, flags = REQUEST_HEAD.unpack_from(frame)
    if not 1 <= cars <= MAX_CARS or flags > 3 or deadline_ms > 1000:
        raise RequestError(f"a frame for {cars} cars, flags {flags}, deadline {deadline_ms} ms")
    numbers = 4 * cars * len(allowed.low)
    wanted = REQUEST_HEAD.size + numbers + (cars if flags & FLAGS_FOLLOW else 0)
    if len(frame) != wanted:
        raise RequestError(f"a frame of {len(frame)} bytes: {cars} cars make {wanted}")
    flat = np.frombuffer(frame, "<f4", numbers // 4, REQUEST_HEAD.size)
    observation = flat.reshape(cars, -1)
    check_range(observation, allowed)
    if flags & FLAGS_FOLLOW:
        is_first = np.frombuffer(frame, np.uint8, cars, REQUEST_HEAD.size + numbers) > 0
    else:
        is_first = np.full(cars, bool(flags & ALL_FIRST))
    return CheckedRequest(
        ObservationBatch(observation, is_first),
        False,
        session,
        step,
        float(deadline_ms) or None,
        None,
    )


def pack_answer(step: int, answer: ActAnswer) -> bytes:
    """The frame of an answer."""
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
    """Returns the step and the answer of a frame, with `actions` even for one car."""
    step, version, age_ms, session_steps, cars, source = ANSWER_HEAD.unpack_from(frame)
    actions = np.frombuffer(frame, "<f4", offset=ANSWER_HEAD.size).reshape(cars, -1)
    return step, ActAnswer(
        source=SOURCES[source],  # type: ignore[arg-type]
        model_version=version or None,
        age_ms=age_ms,
        actions=actions.tolist(),
        session_steps=session_steps or None,
    )
