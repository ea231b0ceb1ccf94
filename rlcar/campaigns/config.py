"""The file of a campaign: many trainings, a few at a time."""

import json
from collections.abc import Mapping
from pathlib import Path

import pydantic
from pydantic import Field

from rlcar.config import Config, make_config, merge
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain
from rlcar.settings.files import read_yaml
from rlcar.settings.numbers import Deadline, Positive, Seconds, Size, Times
from rlcar.settings.section import Section
from rlcar.system.heartbeat import FROZEN_AFTER_S


class Job(Section):
    """One training: the options of `rlcar train`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run and of its folder."""
    preset: str | None = None
    """Preset, as of `rlcar train --preset`."""
    algorithm: str | None = None
    """Algorithm, as of `rlcar train --algorithm`."""
    world: str | None = None
    """World, as of `rlcar train --world`."""
    env: str | None = None
    """Gymnasium environment in place of the race."""
    mode: str = "standard"
    """Mode: `standard`, or `test` for a tiny training."""
    config: str | None = None
    """YAML file of settings."""
    set: dict[str, bool | int | float | str | None] = {}
    """Settings by dotted name, as of `rlcar train --set`."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of everything random; null means that of the settings."""
    local: bool | None = None
    """Whether the training runs in one process instead of on Ray. null means on Ray, as
    `rlcar train` does, unless the settings need one process."""
    simulators: Size | None = None
    """Number of simulator processes on Ray."""
    address: str | None = None
    """Address of a running Ray cluster."""
    hours: Positive | None = None
    """Expected duration in hours, which only decides the order. null orders by env steps."""

    @property
    def is_local(self) -> bool:
        """Whether this job trains in one process, without Ray."""
        if self.local is not None:
            return self.local
        return self.resolved().training.blocks_per_call > 1

    def options(self) -> list[str]:
        """Returns the options of `rlcar train` for this job, without those that name its folder."""
        is_local = self.is_local
        words = ["--local"] if is_local else []
        for name in ("preset", "algorithm", "world", "env", "mode", "config", "seed"):
            value = getattr(self, name)
            words += [] if value is None else [f"--{name}", str(value)]
        for name in ("simulators", "address"):
            value = getattr(self, name)
            words += [] if value is None or is_local else [f"--{name}", str(value)]
        for name, value in self.set.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        return words

    def resolved(self) -> Config:
        """Returns the job's settings; raises ConfigError for what `rlcar train` would refuse."""
        return make_config(
            self.preset,
            self.mode,
            None if self.config is None else Path(self.config),
            [f"{name}={json.dumps(value)}" for name, value in self.set.items()],
            world=self.world,
            algorithm=self.algorithm,
            environment=self.env,
            **({} if self.seed is None else {"seed": self.seed}),
        )


class Campaign(Section):
    """The jobs of a campaign, and how to run them."""

    slots: Size = 1
    """Number of jobs at once."""
    retries: Times = 5
    """Number of retries of each job."""
    backoff_s: Seconds = 10.0
    """Pause before the first retry of a job; it doubles up to ten minutes."""
    stop_within_s: Deadline = 60.0
    """Time that a job has to save when the campaign is stopped."""
    frozen_after_s: Deadline = FROZEN_AFTER_S
    """Restart a job that has shown no sign of life for this long; stages like compiling have
    more time."""
    jobs: list[Job] = Field(min_length=1)
    """The trainings of the campaign."""

    @pydantic.model_validator(mode="after")
    def _names_differ(self) -> "Campaign":
        names = [job.name for job in self.jobs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two jobs are called {name!r}")
        return self

    def longest_first(self) -> list[Job]:
        """Returns the jobs in the order in which they start, those with `hours` first."""

        def length(job: Job) -> tuple[float, int]:
            return job.hours or 0.0, job.resolved().training.env_steps

        return sorted(self.jobs, key=length, reverse=True)


def load_campaign(path: Path) -> Campaign:
    """Reads a campaign; each job inherits the settings under `defaults`.

    Raises ConfigError, naming the job, for whatever `rlcar train` would refuse.
    """
    tree = read_yaml(path)
    defaults = tree.pop("defaults", None) or {}
    jobs = tree.get("jobs")
    if isinstance(jobs, list) and isinstance(defaults, Mapping):
        tree["jobs"] = [merge(defaults, job) if isinstance(job, Mapping) else job for job in jobs]
    try:
        campaign = Campaign.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Campaign)}") from error
    for job in campaign.jobs:
        try:
            job.resolved()
        except ConfigError as error:
            raise ConfigError(f"{path}: job {job.name}: {error}") from error
    return campaign
