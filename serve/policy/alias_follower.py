"""Follows an alias of the registry, and decides which model version acts."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlcar.errors import MissingAliasError, RegistryUnavailableError, UserError
from rlcar.registry import Registry
from serve.api.schema import ModelInterface, make_interface
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
_RETRY_S = 10.0  # before a version that failed is loaded again
# Clients that claim to know of another version must not make the server read all the time.
_MIN_CHECK_INTERVAL_S = 0.05
_MAX_BACKOFF_S, _MAX_DOUBLINGS = 5.0, 8  # between two reads of a registry that fails


class ServedModel(NamedTuple):
    """A version that was loaded, checked and warmed up."""

    number: int
    policy: NumpyPolicy
    interface: ModelInterface
    cost_s: tuple[float, ...]  # time of one act, for each of `BATCH_SIZES`

    def cost_of(self, cars: int) -> float:
        """Estimates the time in seconds of one act with so many cars."""
        single_s, medium_s, large_s = self.cost_s
        if cars <= 1:
            return single_s
        if cars <= BATCH_SIZES[1]:
            return medium_s  # below this size an act takes about as long as with one car
        return large_s * cars / BATCH_SIZES[2]


class AliasFollower:
    """Holds the current version, and checks the alias for a newer one.

    Until the alias is set for the first time, the newest version acts, so that all servers of a
    registry act with the same one. A version that cannot be loaded or that acts badly is never
    swapped in: the one before acts on.
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
        self.candidate: ServedModel | None = None  # of a rollout, which may become the current one
        self.is_registry_empty = False  # at the last search for a first version
        self._alias = alias
        self._metrics = metrics
        self._clock = clock
        self._retry_after_s: dict[int, float] = {}  # by version that failed
        self._refusals: dict[int, str] = {}  # the logged reason, by version that failed
        self._failures = 0  # reads of the registry that failed in a row
        self._has_seen_alias = False
        self._has_warned = False  # of an alias that has never been there
        self._refresh: asyncio.Task[None] | None = None
        self._checked_s = -1.0
        self._lock = asyncio.Lock()

    def load_first(self) -> None:
        """Loads the alias's version, or the newest sound one before it; blocks."""
        numbers = self._candidates()
        self.is_registry_empty = not numbers and self._metrics.is_registry_readable
        for number in numbers:
            model = None if self._has_failed_recently(number) else self._load(number)
            if model is not None:
                self.current = model
                return

    async def check(self) -> None:
        """Reads the alias once, and swaps if another sound version should act."""
        async with self._lock:
            if self._clock() - self._checked_s < _MIN_CHECK_INTERVAL_S:
                return
            self._checked_s = self._clock()
            if self.current is None:
                await run_in_daemon_thread(self.load_first)
                return
            for number in await run_in_daemon_thread(self._preferred):
                if number == self.current.number:
                    return
                if self._has_failed_recently(number):
                    continue
                model = await run_in_daemon_thread(self._load, number)
                if model is not None:
                    _LOGGER.info("version %d replaces version %d", number, self.current.number)
                    self.current = model
                    self._metrics.swaps += 1
                    return

    async def load_candidate(self, number: int) -> ServedModel | None:
        """Loads the candidate of a rollout; None if it is damaged or acts badly.

        Raises RegistryUnavailableError if it cannot be read now, which says nothing about it.
        """
        current = self.current
        if current is not None and current.number == number:
            self.candidate = current
        else:
            self.candidate = await run_in_daemon_thread(self._load, number, is_candidate=True)
        return self.candidate

    def refresh_soon(self) -> None:
        """Starts a check in the background; at most one at a time, and not too often."""
        is_running = self._refresh is not None and not self._refresh.done()
        is_due = self._clock() - self._checked_s >= _MIN_CHECK_INTERVAL_S
        if not is_running and is_due:
            self._refresh = asyncio.get_running_loop().create_task(self._check_safely())

    async def follow(self, poll_s: float) -> None:
        """Checks again and again, whatever happens; less often while the registry fails."""
        while True:
            await asyncio.sleep(min(poll_s * 2**self._failures, max(poll_s, _MAX_BACKOFF_S)))
            await self._check_safely()

    async def _check_safely(self) -> None:
        try:
            await self.check()
        except Exception:
            _LOGGER.exception("cannot check the alias %s; trying again", self._alias)

    def _has_failed_recently(self, number: int) -> bool:
        return self._retry_after_s.get(number, -np.inf) > self._clock()

    def _preferred(self) -> list[int]:
        """Returns the alias's version or, until the alias is set, all versions, newest first.

        The list is empty if the registry cannot be read: the current version acts on.
        """
        try:
            number = self.registry.resolve(self._alias)
        except MissingAliasError as error:
            # A number with more digits than versions have is read as the name of an alias.
            is_number = self._alias.isdecimal()
            if is_number or self._has_seen_alias:  # its folder may have gone with a volume
                self._note_failure(error)
                return []
            if not self._has_warned:
                self._has_warned = True
                _LOGGER.warning("%s; the newest version acts until the alias is set", error)
            return self._candidates()
        except UserError as error:
            self._note_failure(error)
            return []
        self._note_success()
        self._has_seen_alias = True
        return [number]

    def _candidates(self) -> list[int]:
        """Returns the alias's values, the present one first, then every version, newest first.

        A server that follows the number of a version considers only that version.
        """
        if self._alias.isdecimal():
            return self._preferred()
        numbers: list[int | None] = []
        problems: list[UserError] = []
        try:
            numbers += [move.version for move in reversed(self.registry.history(self._alias))]
            self._has_seen_alias = self._has_seen_alias or bool(numbers)
        except UserError as error:
            problems.append(error)
        try:
            numbers += self.registry.numbers()
        except UserError as error:
            problems.append(error)
        if problems:
            self._note_failure(problems[0])
        else:
            self._note_success()
        return list(dict.fromkeys(number for number in numbers if number is not None))

    def _note_failure(self, error: UserError) -> None:
        """Counts a failed read; logs only the first of several in a row."""
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        self._metrics.registry_errors += 1
        self._metrics.is_registry_readable = False
        if self._failures == 1:
            _LOGGER.error("the registry cannot be read, %s meanwhile: %s", self._acting(), error)

    def _acting(self) -> str:
        return "cars brake" if self.current is None else f"version {self.current.number} acts"

    def _note_success(self) -> None:
        if self._failures:
            _LOGGER.warning("the registry can be read again: %s", self.registry.place)
        self._failures = 0
        self._metrics.is_registry_readable = True
        self._metrics.registry_read_unix_s = time.time()

    def _load(self, number: int, *, is_candidate: bool = False) -> ServedModel | None:
        if self.candidate is not None and self.candidate.number == number:
            return self.candidate  # its sessions keep their memory
        try:
            model = warm_up(load_policy(self.registry, number))
        except RegistryUnavailableError as error:
            if is_candidate:
                raise
            self._refuse(number, str(error))
            return None
        except (UserError, FloatingPointError) as error:
            self._refuse(number, str(error))
            return None
        except Exception as error:  # whatever a version contains, the one before it acts on
            _LOGGER.debug("version %d", number, exc_info=True)
            self._refuse(number, f"{type(error).__name__}: {error}")
            return None
        self._refusals.pop(number, None)
        self._metrics.name_actions(number, model.interface.action_names)
        return model

    def _refuse(self, number: int, reason: str) -> None:
        self._metrics.failed_loads += 1
        self._retry_after_s[number] = self._clock() + _RETRY_S
        if self._refusals.get(number) != reason:  # every retry would log the same
            _LOGGER.error("version %d is not used: %s", number, reason)
        self._refusals[number] = reason


def warm_up(policy: NumpyPolicy) -> ServedModel:
    """Acts over the whole range of observations, so that the first request finds a warm policy."""
    observation, action = (policy.version.metadata[part] for part in ("observation", "action"))
    interface = make_interface(
        [entry["low"] for entry in observation],
        [entry["high"] for entry in observation],
        policy.safe_action,
        [entry["name"] for entry in action],
    )
    costs = []
    for cars in BATCH_SIZES:
        state, observation = policy.initial_state(cars), observations_over_range(policy, cars)
        times_s = []
        for step in range(WARM_STEPS):
            began_s = time.perf_counter()
            _, state = policy.act(state, observation, np.full(cars, step == 0))
            times_s.append(time.perf_counter() - began_s)
        costs.append(min(times_s))
    return ServedModel(policy.version.number, policy, interface, tuple(costs))
