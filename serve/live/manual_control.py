"""Who may drive: one client at a time, and only while its hands are on the wheel."""

import time
from collections.abc import Callable

import numpy as np

from rlcar.errors import UserError

DEAD_MAN_S = 0.5  # without input for so long, the car brakes
_IDLE_S = 120.0  # a page that does nothing for so long may be replaced
_REQUEST_IDLE_S = 5.0  # so may a client without a connection, which cannot say that it left
_BRAKE = (0.0, -1.0)  # straight on: it stops, and never drives backwards


class ControlTakenError(UserError):
    """Somebody else drives."""


class ManualControl:
    """Holds the driver's name, what it last asked for, and when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self.driver: str | None = None
        self._is_connected = False
        self._seen_s = self._input_s = -np.inf
        self._pedals = _BRAKE

    def take(self, client: str, *, is_connected: bool) -> bool:
        """Seats a client, or keeps it seated; says whether the driver changed.

        Raises ControlTakenError while somebody else drives.
        """
        now_s = self._clock()
        if self.driver not in (None, client) and not self.is_idle():
            raise ControlTakenError(
                "somebody else drives: watch, and take the wheel when it is free"
            )
        is_new = self.driver != client
        if is_new:
            self._input_s, self._pedals = -np.inf, _BRAKE
        self.driver, self._seen_s, self._is_connected = client, now_s, is_connected
        return is_new

    def is_idle(self) -> bool:
        """Says whether the driver has done nothing for so long that another may take over."""
        limit_s = _IDLE_S if self._is_connected else _REQUEST_IDLE_S
        return self._clock() - self._seen_s > limit_s

    def leave(self, client: str) -> bool:
        """Frees the control if this client had it; says whether it did."""
        had = self.driver == client
        if had:
            self.driver, self._pedals = None, _BRAKE
        return had

    def steer(self, steering: float, throttle: float) -> None:
        """Notes what the driver asks for."""
        self._input_s, self._pedals = self._clock(), (steering, throttle)

    @property
    def is_braking(self) -> bool:
        """Says whether the dead-man timer has run out."""
        return self._clock() - self._input_s > DEAD_MAN_S

    def action(self) -> np.ndarray:
        """Returns what acts now, `[2]`."""
        return np.array(_BRAKE if self.is_braking else self._pedals, np.float32)
