"""Cadence objects: a loop asks them whether something is due (`if should_log(env_steps):`)."""

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass
class Every:
    """Returns True once per `period` of a counter; once only after a jump over several periods."""

    period: float
    next_at: float = 0.0

    def __call__(self, count: float) -> bool:
        if count < self.next_at:
            return False
        self.next_at = (count // self.period + 1) * self.period
        return True


@dataclasses.dataclass
class EverySeconds:
    """Returns True when `period_s` has passed since it last returned True, or since it was made."""

    period_s: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._last_s = self.clock()

    def __call__(self) -> bool:
        now_s = self.clock()
        if now_s - self._last_s < self.period_s:
            return False
        self._last_s = now_s
        return True
