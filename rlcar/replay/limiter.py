"""Keeps the learner in step with the simulators: so many replayed steps for each new one."""

import math
from collections.abc import Mapping


class SamplesPerInsert:
    """Counts env steps inserted and steps sampled, and says how much may be sampled.

    With I inserted and S sampled, the learner owes  ratio (I - min) - S  sampled steps and takes
    them in whole updates. The first `min_env_steps` only fill the memory: no updates are owed for
    them. Simulators never wait for it: who collects a block then trains what is due is in step.
    """

    def __init__(self, samples_per_insert: float, min_env_steps: int) -> None:
        """Raises ValueError for settings with which nothing would ever be learned."""
        if not (math.isfinite(samples_per_insert) and samples_per_insert > 0.0):
            raise ValueError(
                "this will deadlock because with samples_per_insert "
                f"{samples_per_insert} no step is ever sampled: give a positive number"
            )
        if min_env_steps < 0:
            raise ValueError(f"min_env_steps {min_env_steps} cannot be negative")
        self._ratio = samples_per_insert
        self._min_env_steps = min_env_steps
        self._inserted = 0
        self._sampled = 0

    def updates_due(self, steps_per_update: int) -> int:
        """Returns how many updates, of so many sampled steps each, are allowed now."""
        if steps_per_update < 1:
            raise ValueError(f"an update cannot sample {steps_per_update} steps: at least 1")
        owed = self._ratio * max(0, self._inserted - self._min_env_steps) - self._sampled
        return max(0, int(owed // steps_per_update))

    def inserted(self, env_steps: int) -> None:
        """Counts env steps that went into the replay."""
        self._inserted += _count(env_steps)

    def sampled(self, steps: int) -> None:
        """Counts steps that came out of the replay."""
        self._sampled += _count(steps)

    def state(self) -> dict[str, int]:
        """Returns the two counters."""
        return {"inserted": self._inserted, "sampled": self._sampled}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on from what `state` returned."""
        self._inserted = _count(state["inserted"])
        self._sampled = _count(state["sampled"])


def _count(steps: int) -> int:
    if steps < 0:
        raise ValueError(f"a count cannot go back: {steps} steps")
    return int(steps)
