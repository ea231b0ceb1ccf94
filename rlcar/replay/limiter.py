"""Keeps the learner and the simulators in step: so many replayed steps for each new one."""

import math
from collections.abc import Mapping


class SamplesPerInsert:
    """Counts env steps inserted and steps sampled, and says who may go on.

    With I inserted and S sampled, the learner is behind by  ratio (I - min) - S  sampled steps. It
    may take n when it is behind by n or more; simulators wait while it is behind by more than
    ratio * max_ahead. As long as one update is not larger than that, never do both wait. The first
    `min_env_steps` only fill the memory: no updates are owed for them.
    """

    def __init__(
        self,
        samples_per_insert: float,
        min_env_steps: int,
        *,
        max_ahead_env_steps: int,
        steps_per_update: int = 1,
    ) -> None:
        """Two blocks, 2 x T x N, are a good `max_ahead_env_steps`.

        `steps_per_update` is the least the learner takes at once: B x L, times the updates of one
        call. Raises ValueError for settings that would deadlock.
        """
        if not (math.isfinite(samples_per_insert) and samples_per_insert > 0.0):
            raise ValueError(
                "this will deadlock because with samples_per_insert "
                f"{samples_per_insert} no step is ever sampled: give a positive number"
            )
        if min_env_steps < 0:
            raise ValueError(f"min_env_steps {min_env_steps} cannot be negative")
        self._ratio = samples_per_insert
        self._min_env_steps = min_env_steps
        self._max_behind = samples_per_insert * max_ahead_env_steps
        self._inserted = 0
        self._sampled = 0
        self._refuse_deadlock(steps_per_update)

    @property
    def env_steps_inserted(self) -> int:
        """All env steps ever inserted."""
        return self._inserted

    @property
    def steps_sampled(self) -> int:
        """All steps ever sampled."""
        return self._sampled

    def can_sample(self, sampled_steps: int) -> bool:
        """Says whether so many steps may be sampled now."""
        self._refuse_deadlock(sampled_steps)
        return self._inserted >= self._min_env_steps and self._behind() >= sampled_steps

    def updates_due(self, steps_per_update: int) -> int:
        """Returns how many updates, of so many sampled steps each, are allowed now."""
        if not self.can_sample(steps_per_update):
            return 0
        return int(self._behind() // steps_per_update)

    def can_insert(self) -> bool:
        """Says whether simulators may insert; False while the learner is too far behind."""
        return self._behind() <= self._max_behind

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

    def _behind(self) -> float:
        return self._ratio * max(0, self._inserted - self._min_env_steps) - self._sampled

    def _refuse_deadlock(self, sampled_steps: int) -> None:
        if sampled_steps < 1:
            raise ValueError(f"cannot sample {sampled_steps} steps: at least 1")
        if sampled_steps > self._max_behind:
            raise ValueError(
                f"this will deadlock because {sampled_steps} steps at once need "
                f"{sampled_steps / self._ratio:.0f} new env steps, at {self._ratio} samples per "
                f"insert, but simulators stop {self._max_behind / self._ratio:.0f} ahead: raise "
                "max_ahead_env_steps or samples_per_insert, or sample less at once"
            )


def _count(steps: int) -> int:
    if steps < 0:
        raise ValueError(f"a count cannot go back: {steps} steps")
    return int(steps)
