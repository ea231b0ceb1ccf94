"""Counts the evaluations since the last improvement, across resumptions."""

from typing import Any

from rlcar.storage import checkpoint
from rlcar.types import Evaluation

_IMPROVEMENT = 0.01  # of the cost; less is noise between evaluations


class Patience:
    """How many evaluations in a row brought no improvement."""

    def __init__(self, unimproved: int = 0, cost: float | None = None) -> None:
        self.unimproved = unimproved
        self._cost = cost  # of the last improvement

    @classmethod
    def saved_in(cls, save: checkpoint.Save | None) -> "Patience":
        """Returns what a checkpoint records; a new count without one."""
        meta = {} if save is None else save.meta
        return cls(int(meta.get("unimproved", 0)), meta.get("improved_cost"))

    def meta(self) -> dict[str, Any]:
        """Returns what a checkpoint records, for `saved_in`."""
        return {"unimproved": self.unimproved, "improved_cost": self._cost}

    def evaluated(self, evaluation: Evaluation) -> None:
        """Counts an evaluation.

        Those without a cost, and those in which no episode succeeds, say nothing yet.
        """
        cost, outcomes = evaluation.cost, evaluation.outcomes
        if cost is None or (outcomes is not None and outcomes.successes == 0):
            return
        if self._cost is None or cost < self._cost - _IMPROVEMENT * abs(self._cost):
            self.unimproved, self._cost = 0, cost
        else:
            self.unimproved += 1
