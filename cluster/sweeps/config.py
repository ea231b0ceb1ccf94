"""What a sweep is: the settings of a file of `tune_configs/`, and what they make of a trial."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from cluster.config import ClusterConfig
from cluster.sweeps.search_space import (
    Dimension,
    Sample,
    Value,
    nested,
)
from rlcar.config import Config, make_config, merge, parse_config
from rlcar.errors import ConfigError
from rlcar.settings.numbers import Cores, Devices, EnvSteps, Size, Times
from rlcar.settings.section import Section

Goal = Literal["min", "max"]

_SPEEDS: dict[str, Goal] = {
    "rollout/env_steps_per_s": "max",
    "learner/train_steps_per_s": "max",
    "run/train_seconds": "min",
}
RACE_METRICS: dict[str, Goal] = {
    "evaluation/charged_lap_steps": "min",
    "evaluation/lap_rate": "max",
    "evaluation/progress": "max",
    **_SPEEDS,
}
ENVIRONMENT_METRICS: dict[str, Goal] = {
    "evaluation/episode_reward": "max",
    "evaluation/episode_steps": "max",
    **_SPEEDS,
}


class Budget(Section):
    """How much a sweep may cost."""

    env_steps: EnvSteps  # of each trial
    trials: Size | None = None  # None: as many as a grid has points
    concurrent: Size | None = None  # None: as many as the machines hold
    retries: Times = 3  # of one trial whose processes died
    # Of a trial that is one process; `cluster` says it of the others.
    cpus: Cores = 1.0
    gpus: Devices = 0.0


class NoScheduler(Section):
    """Lets every trial use its whole budget."""

    type: Literal["none"]


class AshaScheduler(Section):
    """Asynchronous successive halving (Li et al. 2020): stops what is behind at each rung."""

    type: Literal["asha"]
    grace_env_steps: EnvSteps | None = None  # the first rung; None: the first evaluation
    reduction_factor: float = Field(3.0, ge=1.01, le=1e6)  # one in so many goes on


class PbtScheduler(Section):
    """Population-based training (Jaderberg et al. 2017): the worst continue from the best."""

    type: Literal["pbt"]
    perturb_every_env_steps: EnvSteps
    quantile: float = Field(0.25, ge=1e-6, le=0.5)  # that is replaced, and that replaces it
    resample_probability: float = Field(0.25, ge=0.0, le=1.0)  # else a setting changes by 20 %


Scheduler = Annotated[NoScheduler | AshaScheduler | PbtScheduler, Field(discriminator="type")]


class SweepConfig(Section):
    """Many trainings that differ in a few settings."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    preset: str | None = None
    algorithm: str | None = None
    world: str | None = None
    environment: str | None = None  # of Gymnasium, in place of the race
    mode: str = "standard"
    set: dict[str, Value] = {}  # settings of every trial
    metric: str = "evaluation/charged_lap_steps"
    goal: Goal | None = None  # None: the metric's own
    scheduler: Scheduler = NoScheduler(type="none")
    search: Literal["random", "grid", "optuna"] = "random"
    seed: int = Field(0, ge=0, lt=2**31)  # of the search, not of the trainings
    budget: Budget
    # None: a trial is one process; else it has a learner and simulators of its own.
    cluster: ClusterConfig | None = None
    space: dict[str, Dimension] = Field(min_length=1)

    @pydantic.field_validator("scheduler", mode="before")
    @classmethod
    def _scheduler_may_be_a_name(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given

    def base(self) -> Config:
        """What all trials share."""
        overrides = [f"{name}={json.dumps(value)}" for name, value in self.set.items()]
        overrides.append(f"training.env_steps={self.budget.env_steps}")
        return make_config(
            self.preset,
            self.mode,
            overrides=overrides,
            world=self.world,
            algorithm=self.algorithm,
            environment=self.environment,
        )

    def settings(self, sample: Mapping[str, Any]) -> tuple[Config, ClusterConfig | None]:
        """The settings of one trial; raises ConfigError for values that a config refuses."""
        legal = {name: self.space[name].legal(sample[name]) for name in self.space}
        changes = nested(legal)
        cluster = changes.pop("cluster", None)
        config = parse_config(merge(self.base().model_dump(), changes))
        if self.cluster is None and cluster is None:
            return config, None
        return config, _cluster_settings(self.cluster, cluster or {})

    def sample_of(self, config: Mapping[str, Any]) -> Sample:
        """The searched settings alone, as plain values."""
        return {name: self.space[name].legal(config[name]) for name in self.space}

    @property
    def direction(self) -> Goal:
        """Whether less or more of the metric is better."""
        return self.goal or {**RACE_METRICS, **ENVIRONMENT_METRICS}[self.metric]

    @property
    def trials(self) -> int:
        """How many there will be."""
        return self.budget.trials or self.points()

    def points(self) -> int:
        """How many a grid has."""
        count = 1
        for dimension in self.space.values():
            count *= len(dimension.extremes())
        return count


def _cluster_settings(base: ClusterConfig | None, changes: Mapping[str, Any]) -> ClusterConfig:
    tree = (base or ClusterConfig()).model_dump() | dict(changes)
    try:
        config = ClusterConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        one = error.errors()[0]
        name = f"cluster.{one['loc'][0]}"  # what follows is which of several types it is not
        raise ConfigError(f"{name} = {one['input']!r}: {one['msg']}") from error
    if not isinstance(config.simulators, int):  # none, or auto
        raise ConfigError("cluster.simulators: a trial must say how many it needs")
    if config.address is not None:
        raise ConfigError("cluster.address: name the cluster with --address instead")
    return config
