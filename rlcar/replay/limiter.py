"""The replay ratio: how many steps the learner samples for each new step."""

import math
from collections.abc import Mapping


class SamplesPerInsert:
    """Counts inserted and sampled steps and computes how many updates are due.

    With I inserted and S sampled steps,  ratio (I - min_env_steps) - S  steps are still to be
    sampled, in whole updates. The first `min_env_steps` only fill the buffer. The limiter never
    blocks: the ratio holds if the caller makes the due updates after each block.
    """

    def __init__(self, samples_per_insert: float, min_env_steps: int) -> None:
        """Raises ValueError for settings with which no update would ever be due."""
        if not (math.isfinite(samples_per_insert) and samples_per_insert > 0.0):
            raise ValueError(
                f"samples_per_insert = {samples_per_insert} will deadlock, because no step is ever "
                "sampled: give a positive number"
            )
        if min_env_steps < 0:
            raise ValueError(f"min_env_steps = {min_env_steps} is negative: give 0 or more")
        self._ratio = samples_per_insert
        self._min_env_steps = min_env_steps
        self._inserted = 0
        self._sampled = 0

    def updates_due(self, steps_per_update: int) -> int:
        """Returns how many updates of `steps_per_update` sampled steps each are due."""
        if steps_per_update < 1:
            raise ValueError(
                f"steps_per_update = {steps_per_update}: an update samples at least 1 step"
            )
        steps_due = self._ratio * max(0, self._inserted - self._min_env_steps) - self._sampled
        return max(0, int(steps_due // steps_per_update))

    def inserted(self, env_steps: int) -> None:
        """Counts env steps that were inserted."""
        self._inserted += _count(env_steps)

    def sampled(self, steps: int) -> None:
        """Counts steps that were sampled."""
        self._sampled += _count(steps)

    def state(self) -> dict[str, int]:
        """Returns the two counters."""
        return {"inserted": self._inserted, "sampled": self._sampled}

    def restore(self, state: Mapping[str, int]) -> None:
        """Restores the counters from what `state` returned."""
        self._inserted = _count(state["inserted"])
        self._sampled = _count(state["sampled"])


def _count(steps: int) -> int:
    if steps < 0:
        raise ValueError(f"a number of steps cannot be negative: {steps}")
    return int(steps)
