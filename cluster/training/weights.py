"""Published weights, and the limit on the age of the weights that drove a block."""

from typing import NamedTuple

from ray import ObjectRef

from rlcar.types import Weights

# Without a setting, a block may be so many times as old as the usual delay of blocks in flight.
_DEFAULT_LAG_FACTOR = 4


class PublishedWeights(NamedTuple):
    """One version of the weights; every simulator reads the same object in Ray's object store."""

    version: int  # train steps
    ref: ObjectRef[Weights]


class LagLimit:
    """Detects blocks that were driven with weights that are too old, and counts them."""

    def __init__(self, limit_updates: int | None) -> None:
        """Without a limit, it is four times the train steps that all blocks in flight allow."""
        self._limit = limit_updates
        self._blocks = self._updates = 0
        self.dropped = 0

    def learned(self, updates: int) -> None:
        """Counts a block, and the train steps that followed it."""
        self._blocks += 1
        self._updates += updates

    def is_too_old(self, version: int, newest: int, blocks_in_flight: int) -> bool:
        """Says whether to drop a block that weights of `version` drove, and counts it if so."""
        limit = self._limit
        if limit is None:
            # blocks in flight x mean train steps a block
            in_flight_updates = blocks_in_flight * max(1, self._updates)
            limit = _DEFAULT_LAG_FACTOR * in_flight_updates // max(1, self._blocks)
        is_too_old = newest - version > max(1, limit)
        self.dropped += is_too_old
        return is_too_old
