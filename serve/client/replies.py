"""The replies of a client: the server's answers, and the actions when there is no answer."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serve.api.schema import SAFE_ACTION, ActAnswer

HOLD_STEPS = 3


class Reply(NamedTuple):
    """The actions of the cars now."""

    action: np.ndarray  # [N, A] float32; in the race steering and throttle
    source: str  # model, hold or fallback; the last two are the server's or the client's own
    model_version: int | None
    age_ms: float  # time since the observation behind the action
    latency_ms: float
    error: str | None = None  # why the action is not the model's


class FallbackPolicy:
    """Acts when no answer arrives: repeats the last action for a few steps, then the safe one."""

    def __init__(self, hold_steps: int = HOLD_STEPS, safe_action: Sequence[float] | None = None):
        self.safe_action: Sequence[float] = SAFE_ACTION if safe_action is None else safe_action
        self._hold_steps = hold_steps
        self._missed_steps = 0
        self._last: np.ndarray | None = None
        self._version: int | None = None
        self._observed_s = 0.0

    def accept(self, answer: ActAnswer, cars: int, sent_s: float) -> Reply:
        """Turns an answer into a reply, and keeps the model's action for later.

        Raises ValueError if the answer does not have one action for each car.
        """
        rows = answer.actions if answer.action is None else [answer.action]
        action = np.array(rows, np.float32)
        if action.ndim != 2 or len(action) != cars or not np.isfinite(action).all():
            raise ValueError(f"the server's answer holds no actions for {cars} cars")
        if action.shape[1] != len(self.safe_action):
            raise ValueError(
                f"the server's actions have {action.shape[1]} numbers, and this client expects "
                f"{len(self.safe_action)}: call `check` first, or give safe_action="
            )
        now_s = time.perf_counter()
        if answer.source == "model":
            self._missed_steps, self._last = 0, action
            self._version, self._observed_s = answer.model_version, sent_s
        latency_ms = (now_s - sent_s) * 1e3
        age_ms = max(answer.age_ms, latency_ms)
        return Reply(action, answer.source, answer.model_version, age_ms, latency_ms, answer.error)

    def act(self, cars: int, sent_s: float, error: str) -> Reply:
        """Returns the reply to use when no answer came, or none with the model's action."""
        self._missed_steps += 1
        now_s = time.perf_counter()
        latency_ms = (now_s - sent_s) * 1e3
        can_hold = self._missed_steps <= self._hold_steps
        if self._last is not None and len(self._last) == cars and can_hold:
            age_ms = (now_s - self._observed_s) * 1e3
            return Reply(self._last, "hold", self._version, age_ms, latency_ms, error)
        action = np.tile(np.array(self.safe_action, np.float32), (cars, 1))
        return Reply(action, "fallback", None, latency_ms, latency_ms, error)


def safe_action_of(model: Mapping[str, Any]) -> Sequence[float]:
    """Returns the safe action of a version as `/v1/models` describes it; the car's without one."""
    from rlcar.config.schema import safe_action  # here, because most clients need no settings

    try:
        return safe_action(model)
    except (KeyError, TypeError, ValueError, AttributeError):
        return SAFE_ACTION


class Counts:
    """Counts the replies of a client, and keeps their latencies."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.timeouts = 0
        self.errors = 0
        self.connects = 0  # WebSockets that were opened
        self.latencies_ms: deque[float] = deque(maxlen=100_000)

    def add(self, reply: Reply) -> None:
        """Counts a reply."""
        self.sources[reply.source] += 1
        self.latencies_ms.append(reply.latency_ms)

    def latency_ms(self, percentile: float) -> float:
        """Returns a percentile of the last 100,000 latencies."""
        return float(np.percentile(self.latencies_ms, percentile)) if self.latencies_ms else 0.0
