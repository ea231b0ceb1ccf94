"""What the server sends to the process that records, and what that process reports."""

import struct
from typing import Any

import msgspec
import numpy as np

from serve.api.outcomes import Executions, Outcome

# Before each list of messages: the number of its bytes.
HEAD = struct.Struct("<I")


class Model(msgspec.Struct, tag=True, array_like=True):
    """A version that drives sessions; precedes its first step."""

    version: int
    config: dict[str, Any]
    observation_size: int
    action_size: int


class Step(msgspec.Struct, tag=True, array_like=True):
    """One request of a session and its answer, for N cars; the bytes are arrays of its cars.

    `sequence` counts the steps of a session. A number that is missing is a step that was lost.
    """

    session: int
    sequence: int
    step: int | None  # the client's own number
    model: int  # version of the session's model
    version: int  # version that the answer names
    source: str
    observation: bytes  # [N, O] float32
    is_first: bytes  # [N] bool
    action: bytes  # [N, A] float32
    reward: bytes | None = None  # [N] float32
    is_terminal: bytes | None = None  # [N] bool
    is_truncated: bytes | None = None  # [N] bool
    driver: bytes | None = None  # [N] uint8: index into DRIVERS + 1; 0: the answer was executed
    executed: bytes | None = None  # [N, A] float32
    logp: bytes | None = None  # [N] float32
    rollout: str | None = None  # under way when the version answered
    is_canary: bool = False  # whether the version is the candidate of the rollout


class Report(msgspec.Struct, omit_defaults=True):
    """What the process has done since its last report."""

    episodes: int = 0
    steps: int = 0
    deleted_episodes: int = 0
    lost_steps: dict[str, int] = {}  # by reason
    bytes: int = 0  # of the data set on the disk
    problem: str | None = None  # why nothing can be written now
    notes: list[str] = []  # for the log


Message = Model | Step
ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(list[Message])
REPORTS = msgspec.json.Decoder(Report)


def pack(messages: list[Message]) -> bytes:
    """Returns messages as bytes for the process."""
    body = ENCODER.encode(messages)
    return HEAD.pack(len(body)) + body


def with_outcome(step: Step, outcome: Outcome) -> Step:
    """Adds to a step what its request reported of the step before it."""
    if outcome.reward is not None:
        step.reward = _bytes(outcome.reward, np.float32)
    step.is_terminal = _bytes(outcome.is_terminal, np.bool_)
    step.is_truncated = _bytes(outcome.is_truncated, np.bool_)
    if outcome.executed is not None:
        step.driver = _bytes(outcome.executed.driver, np.uint8)
        step.executed = _bytes(outcome.executed.action, np.float32)
        step.logp = _bytes(outcome.executed.logp, np.float32)
    return step


def outcome_of(step: Step, cars: int) -> Outcome | None:
    """Returns what `with_outcome` added."""
    if step.is_terminal is None or step.is_truncated is None:
        return None
    executed = None
    if step.driver is not None and step.executed is not None and step.logp is not None:
        executed = Executions(
            np.frombuffer(step.driver, np.uint8),
            np.frombuffer(step.executed, np.float32).reshape(cars, -1),
            np.frombuffer(step.logp, np.float32),
        )
    return Outcome(
        None if step.reward is None else np.frombuffer(step.reward, np.float32),
        np.frombuffer(step.is_terminal, np.bool_),
        np.frombuffer(step.is_truncated, np.bool_),
        executed,
    )


def _bytes(array: np.ndarray, kind: type[np.generic]) -> bytes:
    return np.ascontiguousarray(array, kind).tobytes()
