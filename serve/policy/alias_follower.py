"""Which model version acts: follows a registry's alias, and swaps only what has proved itself."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.api.schema import ObservationRange, make_range
from serve.observing.metrics import ServerMetrics
from serve.policy.policy import (
    BATCH_SIZES,
    WARM_STEPS,
    NumpyPolicy,
    load_policy,
    observations_over_range,
)
from serve.policy.registry_calls import run_in_daemon_thread

_LOGGER = logging.getLogger(__name__)
_RETRY_S = 10.0
_LOOK_S = 0.05  # clients that claim to know of another version must not keep us reading
_MOST_WAIT_S, _MOST_DOUBLINGS = 5.0, 8  # between two looks at a registry that fails


class ServedModel(NamedTuple):
    """A version that was read, checked and warm_up."""

    number: int
    policy: NumpyPolicy
    allowed: ObservationRange
    cost_s: tuple[float, ...]  # of one act with `BATCH_SIZES` cars

    def cost_of(self, cars: int) -> float:
        """Seconds that one act with so many cars will take, about."""
        one_s, some_s, many_s = self.cost_s
        if cars <= 1:
            return one_s
        if cars <= BATCH_SIZES[1]:
            return some_s  # below, an act costs about as much as with one car
        return many_s * cars / BATCH_SIZES[2]


class AliasFollower:
    """The current version, and the task that keeps it so.

    A version that cannot be read or that acts badly is never swapped in: the one before acts on.
    """

    def __init__(
        self,
        registry: Registry,
        alias: str,
        metrics: ServerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.registry = registry
        self.current: ServedModel | None = None
        self._alias = alias
        self._metrics = metrics
        self._clock = clock
        self._bad: dict[int, float] = {}  # version -> when it may be tried again
        self._refusals: dict[int, str] = {}  # version -> why it was not used, as logged
        self._failures = 0  # looks at the registry that failed, since the last that did not
        self._refresh: asyncio.Task[None] | None = None
        self._looked_s = -1.0
        self._lock = asyncio.Lock()

    def load_first(self) -> None:
        """Takes the alias's version, or the newest sound one before it; blocks."""
        for number in self._candidates():
            model = None if self._is_bad(number) else self._try(number)
            if model is not None:
                self.current = model
                return

    async def check(self) -> None:
        """Looks at the alias once, and swaps if it has moved to a sound version."""
        async with self._lock:
            if self._clock() - self._looked_s < _LOOK_S:
                return
            self._looked_s = self._clock()
            if self.current is None:
                await run_in_daemon_thread(self.load_first)
                return
            number = await run_in_daemon_thread(self._wanted)
            if number is None or number == self.current.number:
                return
            if self._is_bad(number):
                return
            model = await run_in_daemon_thread(self._try, number)
            if model is not None:
                _LOGGER.info("version %d acts now, before it %d", number, self.current.number)
                self.current = model
                self._metrics.swaps += 1

    def refresh_soon(self) -> None:
        """Starts a look at the alias that nobody waits for; one at a time, and not too often."""
        is_running = self._refresh is not None and not self._refresh.done()
        if not is_running and self._clock() - self._looked_s >= _LOOK_S:
            self._refresh = asyncio.get_running_loop().create_task(self._checked())

    async def follow(self, poll_s: float) -> None:
        """Checks again and again, whatever happens; less often while the registry fails."""
        while True:
            await asyncio.sleep(min(poll_s * 2**self._failures, max(poll_s, _MOST_WAIT_S)))
            await self._checked()

    async def _checked(self) -> None:
        try:
            await self.check()
        except Exception:
            _LOGGER.exception("cannot look at the alias %s; trying again", self._alias)

    def _is_bad(self, number: int) -> bool:
        """Whether it failed so lately that it is not worth another look."""
        return self._bad.get(number, -np.inf) > self._clock()

    def _wanted(self) -> int | None:
        try:
            number = self.registry.resolve(self._alias)
        except UserError as error:
            self._failed(error)
            return None
        self._succeeded()
        return number

    def _candidates(self) -> list[int]:
        """The alias's values, the present one first, then every version, newest first.

        A server that follows the number of a version considers that version alone.
        """
        if self._alias.isdecimal():
            number = self._wanted()
            return [] if number is None else [number]
        numbers: list[int | None] = []
        problems: list[UserError] = []
        try:
            numbers += [one.version for one in reversed(self.registry.history(self._alias))]
        except UserError as error:
            problems.append(error)
        try:
            numbers += self.registry.numbers()
        except UserError as error:
            problems.append(error)
        if problems:
            self._failed(problems[0])
        else:
            self._succeeded()
        return list(dict.fromkeys(number for number in numbers if number is not None))

    def _failed(self, error: UserError) -> None:
        """Counts a look that failed; logs the first of several that fail for the same reason."""
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        self._metrics.registry_errors += 1
        self._metrics.is_registry_readable = False
        if self._failures == 1:
            acting = "cars brake" if self.current is None else f"version {self.current.number} acts"
            _LOGGER.error("the registry cannot be read, %s meanwhile: %s", acting, error)

    def _succeeded(self) -> None:
        if self._failures:
            _LOGGER.warning("the registry can be read again: %s", self.registry.place)
        self._failures = 0
        self._metrics.is_registry_readable = True

    def _try(self, number: int) -> ServedModel | None:
        try:
            model = warm_up(load_policy(self.registry, number))
        except (UserError, FloatingPointError) as error:
            self._is_refused(number, str(error))
            return None
        except Exception as error:  # whatever a version holds, the one before it acts on
            _LOGGER.debug("version %d", number, exc_info=True)
            self._is_refused(number, f"{type(error).__name__}: {error}")
            return None
        self._refusals.pop(number, None)
        return model

    def _is_refused(self, number: int, reason: str) -> None:
        self._metrics.failed_loads += 1
        self._bad[number] = self._clock() + _RETRY_S
        if self._refusals.get(number) != reason:  # it is tried again and again
            _LOGGER.error("version %d is not used: %s", number, reason)
        self._refusals[number] = reason


def warm_up(policy: NumpyPolicy) -> ServedModel:
    """Acts on the whole range of observations, so that the first request finds a warm policy."""
    metadata = policy.version.metadata
    allowed = make_range(*(_bounds(metadata["observation"], end) for end in ("low", "high")))
    costs = []
    for cars in BATCH_SIZES:
        state, seen = policy.initial_state(cars), observations_over_range(policy, cars)
        times_s = []
        for turn in range(WARM_STEPS):
            began_s = time.perf_counter()
            _, state = policy.act(state, seen, np.full(cars, turn == 0))
            times_s.append(time.perf_counter() - began_s)
        costs.append(min(times_s))
    return ServedModel(policy.version.number, policy, allowed, tuple(costs))


def _bounds(schema: list[dict[str, Any]], end: str) -> list[float]:
    free = -np.inf if end == "low" else np.inf
    return [free if entry[end] is None else entry[end] for entry in schema]
