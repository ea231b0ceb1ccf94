"""One recorded episode."""

from typing import NamedTuple

import numpy as np

from rlcar.types import Array

# Who chose the actions: a policy or a script; a server that held the last action; a server's
# fallback rule; a person.
SOURCES = ("model", "hold", "fallback", "human")
JOIN = " + "  # between the names of an episode that several policies drove
# One name for the whole episode, or one for each step: [T] object.
Names = str | np.ndarray


class Episode(NamedTuple):
    """T consecutive transitions of one episode.

    Both flags at the end can be False only for an episode that is still being checked: a writer
    requires exactly one of them.
    """

    # [T + 1, O] float32, or images: [T + 1, height, width, channels] uint8. The last one is the
    # observation after the last action.
    observation: Array
    action: Array  # [T, A] float32 in [-1, 1], or [T] int32: the index of a discrete action
    reward: Array  # [T] float32
    is_terminal: bool  # ended by a crash or a finish: no reward can follow
    is_truncated: bool  # ended by a time limit or by the end of the recording
    action_logp: Array | None = None  # [T] float32, log-probability density of the behaviour policy
    policy: Names = ""  # name of the behaviour policy, empty if unknown
    source: Names = "model"  # of SOURCES

    @property
    def transitions(self) -> int:
        """The number of transitions (T)."""
        return len(self.reward)


def distinct(names: Names) -> list[str]:
    """Returns the different names of an episode, sorted."""
    return [names] if isinstance(names, str) else sorted(set(names.tolist()))
