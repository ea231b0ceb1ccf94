"""Manual control of the car: one client at a time, and only while its input arrives."""

import time
from collections.abc import Callable

import numpy as np

from rlcar.errors import UserError
from serve.api.schema import SAFE_ACTION

DEAD_MAN_S = 0.5  # the car brakes after so long without input
_IDLE_S = 120.0  # after so long without input, another client may replace a page
_REQUEST_IDLE_S = 5.0  # and a client without a connection, which cannot announce that it leaves


class ControlTakenError(UserError):
    """Another client has control."""


class ManualControl:
    """Holds the client that has control, its last input, and when that arrived.

    Without input the car brakes: it comes to a stop straight ahead, and never drives backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self.driver: str | None = None
        self._is_connected = False
        self._active_s = self._input_s = -np.inf
        self._input = SAFE_ACTION

    def take(self, client: str, *, is_connected: bool) -> bool:
        """Gives control to a client, or extends its control; returns whether the driver changed.

        Raises ControlTakenError while another client has control.
        """
        now_s = self._clock()
        if self.driver not in (None, client) and not self.is_idle():
            raise ControlTakenError("somebody else drives: wait until they release control")
        is_new = self.driver != client
        if is_new:
            self._input_s, self._input = -np.inf, SAFE_ACTION
        self.driver, self._active_s, self._is_connected = client, now_s, is_connected
        return is_new

    def is_idle(self) -> bool:
        """Whether the driver has done nothing for so long that another client may take over."""
        limit_s = _IDLE_S if self._is_connected else _REQUEST_IDLE_S
        return self._clock() - self._active_s > limit_s

    def release(self, client: str) -> bool:
        """Ends the control of this client; returns whether it had control."""
        had_control = self.driver == client
        if had_control:
            self.driver, self._input = None, SAFE_ACTION
        return had_control

    def steer(self, steering: float, throttle: float) -> None:
        """Stores the driver's input."""
        self._input_s, self._input = self._clock(), (steering, throttle)

    @property
    def is_braking(self) -> bool:
        """Whether the last input is older than `DEAD_MAN_S`."""
        return self._clock() - self._input_s > DEAD_MAN_S

    def action(self) -> np.ndarray:
        """Returns the action `[2]` now."""
        return np.array(SAFE_ACTION if self.is_braking else self._input, np.float32)
