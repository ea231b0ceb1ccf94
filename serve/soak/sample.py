"""What a soak measures at one moment."""

from collections.abc import Mapping
from typing import NamedTuple

from rlcar.system.process_usage import Usage
from serve.soak.traffic import Heard


class Sample(NamedTuple):
    """One look at everything that a soak runs."""

    second: float  # since all of it runs
    groups: Mapping[str, Usage]  # training, server, page, and the soak itself
    disk_mb: Mapping[str, float]  # by folder
    idle_cpu_s: float  # CPU time that no program of this machine used, since the machine started
    env_steps: float | None  # of the training so far; None before its first row
    train_steps: float | None
    heard: Heard
    versions: int  # published so far
    restarts: int  # so far, of any process
    versions_answering: int = 0  # so far, as the clients have noticed

    def total(self, name: str) -> float:
        """Returns the sum of one number of `Usage` over all groups."""
        return float(sum(getattr(usage, name) for usage in self.groups.values()))
