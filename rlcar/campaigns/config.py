"""The file of a campaign: many trainings, a few at a time."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from rlcar.campaigns.failures import FAILURE_CLASSES, FailureClass, Limit, default_limit
from rlcar.campaigns.prediction import Work
from rlcar.config import Config, make_config, merge
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain
from rlcar.settings.files import read_yaml
from rlcar.settings.numbers import Deadline, Pause, Positive, Processes, Seconds, Size, Times
from rlcar.settings.section import Section
from rlcar.system.heartbeat import FROZEN_AFTER_S

_SECONDS_PER_MINUTE = 60.0
_MOST_SEEDS = 10_000
_LONGEST_NAME = 200  # file systems allow 255 bytes, with what is added to the name
_LOGS = "logs"
# Settings of a training that do not change its rate.
_NOT_OF_THE_RATE = ("env_steps", "episodes", "storage", "start_from")


class Job(Section):
    """One training: the options of `rlcar train`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=_LONGEST_NAME)
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
    """Expected duration in hours, until a rate is measured. null means that jobs of an unknown rate
    are measured for `probe_s` first."""

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

    def work(self, config: Config) -> Work:
        """Returns what this job, whose settings are `config`, has to do."""
        tree = config.model_dump(mode="json")
        tree.pop("seed", None)
        for name in _NOT_OF_THE_RATE:
            tree["training"].pop(name, None)
        kind = f"{config.algorithm} {config.environment.id or config.world} {self.address or ''}"
        episodes = getattr(config.training, "episodes", None)
        total, unit = config.training.env_steps, "env steps"
        if episodes:
            total, unit = episodes, "episodes"
        settings = json.dumps([kind, self.is_local, self.simulators, tree], sort_keys=True)
        return Work(float(total), unit, settings, kind, self.hours)


class Patience(Section):
    """How one class of failures is answered."""

    retries: Times
    """Number of retries after failures of this class."""
    backoff_s: Pause = 10.0
    """Pause before the first of these retries; it doubles up to ten minutes."""


class Campaign(Section):
    """The jobs of a campaign, and how to run them."""

    slots: Size = 1
    """Number of jobs at once."""
    devices: list[Processes] = []
    """Numbers of the GPUs that the slots use in turn (CUDA_VISIBLE_DEVICES). Empty leaves the
    choice to each job."""
    retries: Times = 5
    """Number of retries of each job, for each class of failures. A mistake in the settings is
    not retried, and a NaN once."""
    backoff_s: Seconds = 10.0
    """Pause before the first retry of a job; it doubles up to ten minutes. After failures of
    memory, devices and servers it is three times as long."""
    failures: dict[FailureClass, Patience] = {}
    """Retries and pauses of single classes of failures in place of the two settings above:
    `configuration`, `memory`, `killed`, `nan`, `device`, `unavailable`, `frozen` or `unknown`."""
    probe_s: Pause = 60.0
    """Time for which a job of an unknown rate runs before a longer job may take its slot. 0 never
    stops a job for that."""
    report_every_min: Positive = 30.0
    """Minutes between two reports in the campaign's folder."""
    stop_within_s: Deadline = 60.0
    """Time that a job has to save when the campaign is stopped."""
    frozen_after_s: Deadline = FROZEN_AFTER_S
    """Restart a job that has shown no sign of life for this long; stages like compiling have
    more time."""
    jobs: list[Job] = Field(min_length=1)
    """The trainings of the campaign."""

    @pydantic.model_validator(mode="after")
    def _names_differ(self) -> "Campaign":
        for name, count in Counter(job.name for job in self.jobs).items():
            if count > 1:
                raise ValueError(f"two jobs are called {name!r}")
            if name == _LOGS:
                raise ValueError(f"no job can be called {name!r}: runs/{name} holds the logs")
        return self

    @property
    def report_every_s(self) -> float:
        """Time between two reports."""
        return self.report_every_min * _SECONDS_PER_MINUTE

    def limits(self) -> dict[FailureClass, Limit]:
        """Returns how each class of failures is answered."""
        return {
            kind: Limit(self.failures[kind].retries, self.failures[kind].backoff_s)
            if kind in self.failures
            else default_limit(kind, self.retries, self.backoff_s)
            for kind in FAILURE_CLASSES
        }


def load_campaign(path: Path, address: str | None = None) -> Campaign:
    """Reads a campaign; each job inherits the settings under `defaults`.

    A job with `seeds` becomes one job for each seed. `address` is that of a Ray cluster for all
    jobs. Raises ConfigError, naming the job, for whatever `rlcar train` would refuse.
    """
    tree = read_yaml(path)
    defaults = tree.pop("defaults", None) or {}
    jobs = tree.get("jobs")
    if isinstance(jobs, list) and isinstance(defaults, Mapping):
        try:
            tree["jobs"] = [one for job in jobs for one in _expanded(defaults, job)]
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    try:
        campaign = Campaign.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Campaign)}") from error
    if address is not None:
        on_cluster = [job.model_copy(update={"address": address}) for job in campaign.jobs]
        campaign = campaign.model_copy(update={"jobs": on_cluster})
    for job in campaign.jobs:
        try:
            job.resolved()
        except ConfigError as error:
            raise ConfigError(f"{path}: job {job.name}: {error}") from error
        if address is not None and job.is_local:
            raise ConfigError(
                f"{path}: job {job.name} trains in one process, so it cannot run on the cluster "
                f"{address}: leave out --address, or local and training.blocks_per_call in the file"
            )
    return campaign


def _expanded(defaults: Mapping[str, Any], job: Any) -> list[Any]:
    """Returns one job for each of its `seeds`, a list or a number of them, named `NAME-SEED`."""
    if not isinstance(job, Mapping):
        return [job]  # the validation says what is wrong with it
    job = merge(defaults, job)
    if "seeds" not in job:
        return [job]
    rest = {name: value for name, value in job.items() if name != "seeds"}
    seeds, name = job["seeds"], job.get("name")
    if "seed" in job:
        raise ConfigError(f"job {name!r} has seed and seeds: leave out one of them")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= _MOST_SEEDS:
        seeds = list(range(seeds))
    are_numbers = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not are_numbers or not 1 <= len(seeds) <= _MOST_SEEDS or len(set(seeds)) != len(seeds):
        raise ConfigError(
            f"job {name!r}: seeds = {seeds!r}: give how many there are, such as 3, or a list of "
            "different whole numbers, such as [0, 1, 2]"
        )
    return [{**rest, "name": f"{name}-{seed}", "seed": seed} for seed in seeds]
