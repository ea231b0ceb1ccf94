"""Stands in for the simulators of a training whose learner reads recorded data itself."""

from types import TracebackType
from typing import Self

from rlcar.config import Config


class NoFleet:
    """Holds no simulators; `requests` says how many blocks the learner may read."""

    def __init__(self, config: Config):
        self._env_steps = config.training.env_steps
        self._block_env_steps = config.training.block_length * config.training.cars
        # A deterministic training evaluates after fixed blocks, so none may be ahead.
        self._is_one_at_a_time = config.training.deterministic

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Does nothing, because nothing was started."""

    def requests(self, env_steps: int, blocks_in_flight: int, free_places: int) -> int:
        """Returns how many blocks the learner may be asked to read now, so that it stops in time.

        `env_steps` are those that it has reported.
        """
        left = -(-(self._env_steps - env_steps) // self._block_env_steps) - blocks_in_flight
        places = free_places
        if self._is_one_at_a_time:
            places = 0 if blocks_in_flight else 1
        return max(0, min(left, places))

    def start(self) -> None:
        """Does nothing."""

    def stop_starting(self) -> None:
        """Does nothing."""

    def free_cores(self, is_urgent: bool = False) -> None:
        """Does nothing."""

    def count_lost(self, blocks: int) -> None:
        """Does nothing: no block travels."""

    def metrics(self) -> dict[str, float]:
        """Returns nothing."""
        return {}
