"""Weights on their way: one object a version, the newest wins; which blocks come too late."""

from typing import Any, NamedTuple


class Published(NamedTuple):
    """One version of the weights; everybody reads the same object."""

    version: int  # train steps
    ref: Any  # of Weights


class LagLimit:
    """Tells blocks that were driven with too old weights; counts them."""

    def __init__(self, limit_updates: int | None) -> None:
        """Without a limit it is four times what `blocks_in_flight` amount to."""
        self._limit = limit_updates
        self._blocks = self._updates = 0
        self.dropped = 0

    def learned(self, updates: int) -> None:
        """Counts a block and the updates that it allowed."""
        self._blocks += 1
        self._updates += updates

    def is_too_old(self, version: int, newest: int, blocks_in_flight: int) -> bool:
        """Says whether a block of weights `version` is to be dropped, and counts it."""
        limit = self._limit
        if limit is None:
            limit = 4 * blocks_in_flight * max(1, self._updates) // max(1, self._blocks)
        is_too_old = newest - version > max(1, limit)
        self.dropped += is_too_old
        return is_too_old
