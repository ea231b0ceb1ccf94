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

# A request: step, deadline in ms (0: the server's default), cars, flags. The float32 observations
# of the cars follow, and with FLAGS_FOLLOW one byte per car, which is 1 where an episode begins.
REQUEST_HEAD = struct.Struct("<IHHB3x")
ALL_FIRST, FLAGS_FOLLOW = 1, 2
# An answer: step, model version (0: none), age in ms, session steps, cars, index into SOURCES. The
# float32 actions of the cars follow.
ANSWER_HEAD = struct.Struct("<IIfIHB5x")
SOURCES = ("model", "hold", "fallback")


def pack_request(batch: ObservationBatch, step: int, deadline_ms: int = 0) -> bytes:
    """Returns the frame of a request; with `deadline_ms=0` the server's default applies."""
    cars = len(batch.observation)
    head = REQUEST_HEAD.pack(step, deadline_ms, cars, FLAGS_FOLLOW)
    body = np.ascontiguousarray(batch.observation, "<f4").tobytes()
    return head + body + batch.is_first.astype(np.uint8).tobytes()


def unpack_request(frame: bytes, allowed: ObservationRange, session: str) -> CheckedRequest:
    """Parses the frame of a request; raises RequestError unless it is valid."""
    if len(frame) < REQUEST_HEAD.size:
        raise RequestError(
            f"the frame has {len(frame)} bytes: its header alone has {REQUEST_HEAD.size}"
        )
    step, deadline_ms, cars, flags = REQUEST_HEAD.unpack_from(frame)
    if not 1 <= cars <= MAX_CARS or flags > 3 or deadline_ms > 1000:
        raise RequestError(f"a frame for {cars} cars, flags {flags}, deadline {deadline_ms} ms")
    numbers = 4 * cars * len(allowed.low)
    expected = REQUEST_HEAD.size + numbers + (cars if flags & FLAGS_FOLLOW else 0)
    if len(frame) != expected:
        raise RequestError(f"the frame has {len(frame)} bytes: one for {cars} cars has {expected}")
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
