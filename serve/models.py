"""Which model version acts: follows a registry's alias, and swaps only what has proved itself."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.meter import Meter
from serve.policy import NumpyPolicy, load_policy
from serve.schema import MAX_CARS, ObservationRange, make_range

_LOGGER = logging.getLogger(__name__)
_RETRY_S = 10.0
_LOOK_S = 0.02  # who claims to know of another version must not keep us reading
_COST_SIZES = (1, 64, MAX_CARS)


class ServedModel(NamedTuple):
    """A version that was read, checked and warmed."""

    number: int
    policy: NumpyPolicy
    allowed: ObservationRange
    cost_s: tuple[float, ...]  # of one act with `_COST_SIZES` cars

    def cost_of(self, cars: int) -> float:
        """Seconds that one act with so many cars will take, about."""
        one_s, some_s, many_s = self.cost_s
        if cars <= 1:
            return one_s
        if cars <= _COST_SIZES[1]:
            return some_s  # below, an act costs about as much as with one car
        return many_s * cars / _COST_SIZES[2]


class Models:
    """The current version, and the task that keeps it so.

    A version that cannot be read or that acts badly is never swapped in: the one before acts on.
    """

    def __init__(
        self,
        registry: Registry,
        alias: str,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.registry = registry
        self.current: ServedModel | None = None
        self._alias = alias
        self._meter = meter
        self._clock = clock
        self._bad: dict[int, float] = {}  # version -> when it may be tried again
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
                await asyncio.to_thread(self.load_first)
                return
            number = await asyncio.to_thread(self._wanted)
            if number is None or number == self.current.number:
                return
            if self._is_bad(number):
                return
            model = await asyncio.to_thread(self._try, number)
            if model is not None:
                _LOGGER.info("version %d acts now, before it %d", number, self.current.number)
                self.current = model
                self._meter.swaps += 1

    async def follow(self, poll_s: float) -> None:
        """Checks again and again, whatever happens."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.check()
            except Exception:
                _LOGGER.exception("cannot look at the alias %s; trying again", self._alias)

    def _is_bad(self, number: int) -> bool:
        """Whether it failed so lately that it is not worth another look."""
        return self._bad.get(number, -np.inf) > self._clock()

    def _wanted(self) -> int | None:
        with contextlib.suppress(UserError):
            return self.registry.resolve(self._alias)
        return None

    def _candidates(self) -> list[int]:
        """The alias's values, the present one first, then every version, newest first."""
        numbers: list[int | None] = []
        try:
            numbers += [one.version for one in reversed(self.registry.history(self._alias))]
        except UserError as error:
            _LOGGER.error("%s", error)
        try:
            numbers += [version.number for version in self.registry.versions()]
        except UserError as error:
            _LOGGER.error("%s", error)
        return list(dict.fromkeys(number for number in numbers if number is not None))

    def _try(self, number: int) -> ServedModel | None:
        try:
            return warmed(load_policy(self.registry, number))
        except (UserError, FloatingPointError) as error:
            self._meter.failed_loads += 1
            self._bad[number] = self._clock() + _RETRY_S
            _LOGGER.error("version %d is not used: %s", number, error)
            return None


def warmed(policy: NumpyPolicy) -> ServedModel:
    """Acts on the whole range of observations, so that the first request finds a warm policy."""
    metadata = policy.version.metadata
    allowed = make_range(*(_bounds(metadata["observation"], end) for end in ("low", "high")))
    costs = []
    for cars in _COST_SIZES:
        state = policy.initial_state(cars)
        mix = np.linspace(0.0, 1.0, cars, dtype=np.float32)[:, None]
        low, high = np.nan_to_num(allowed.low, neginf=-1.0), np.nan_to_num(allowed.high, posinf=1.0)
        seen = low + mix * (high - low)
        times_s = []
        for turn in range(5):
            began_s = time.perf_counter()
            _, state = policy.act(state, seen, np.full(cars, turn == 0))
            times_s.append(time.perf_counter() - began_s)
        costs.append(min(times_s))
    return ServedModel(policy.version.number, policy, allowed, tuple(costs))


def _bounds(schema: list[dict[str, Any]], end: str) -> list[float]:
    free = -np.inf if end == "low" else np.inf
    return [free if entry[end] is None else entry[end] for entry in schema]
