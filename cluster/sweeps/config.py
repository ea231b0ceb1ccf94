"""The settings of a sweep, as in a file of `tune_configs/`, and the settings of its trials."""

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
from rlcar.settings.explain import explain
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
    "evaluation/success_rate": "max",
    "evaluation/episode_reward": "max",
    "evaluation/episode_steps": "max",
    **_SPEEDS,
}


class Budget(Section):
    """How much a sweep may cost."""

    env_steps: EnvSteps
    """Number of env steps of each trial."""
    trials: Size | None = None
    """Number of trials. null means as many as the grid has points."""
    concurrent: Size | None = None
    """Number of trials at once. null means as many as the machines hold."""
    retries: Times = 3
    """Number of retries of a trial whose processes died."""
    cpus: Cores = 1.0
    """CPU cores of a trial that is one process; `cluster` sets those of other trials."""
    gpus: Devices = 0.0
    """GPUs of a trial that is one process; `cluster` sets those of other trials."""


class NoScheduler(Section):
    """Lets every trial use its whole budget."""

    type: Literal["none"]
    """Every trial uses its whole budget."""


class AshaScheduler(Section):
    """Asynchronous successive halving (Li et al. 2020): stops what is behind at each rung."""

    type: Literal["asha"]
    """Asynchronous successive halving."""
    grace_env_steps: EnvSteps | None = None
    """Number of env steps before a trial may be stopped. null means the first evaluation."""
    reduction_factor: float = Field(3.0, ge=1.01, le=1e6)
    """One in this number of trials continues at each rung."""


class PbtScheduler(Section):
    """Population-based training (Jaderberg et al. 2017): the worst continue from the best."""

    type: Literal["pbt"]
    """Population-based training: the worst trials continue from the best."""
    perturb_every_env_steps: EnvSteps
    """Number of env steps between two exchanges."""
    quantile: float = Field(0.25, ge=1e-6, le=0.5)
    """Share of the trials that is replaced, and share that replaces them."""
    resample_probability: float = Field(0.25, ge=0.0, le=1.0)
    """Probability that a setting is drawn anew; otherwise it changes by 20 %."""


Scheduler = Annotated[NoScheduler | AshaScheduler | PbtScheduler, Field(discriminator="type")]


class SweepConfig(Section):
    """Many trainings that differ in a few settings."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the sweep and of its folder below `sweeps/`."""
    preset: str | None = None
    """Preset of every trial, as of `rlcar train --preset`."""
    algorithm: str | None = None
    """Algorithm of every trial, as of `rlcar train --algorithm`."""
    world: str | None = None
    """World of every trial, as of `rlcar train --world`."""
    environment: str | None = None
    """Gymnasium environment in place of the race."""
    mode: str = "standard"
    """Mode of every trial: `standard`, or `test` for tiny ones."""
    set: dict[str, Value] = {}
    """Settings of every trial, by dotted name."""
    metric: str = "evaluation/charged_lap_steps"
    """Metric that is optimised."""
    goal: Goal | None = None
    """Whether a lower or a higher metric is better; null means the metric's own direction."""
    scheduler: Scheduler = NoScheduler(type="none")
    """Scheduler that stops or replaces trials."""
    search: Literal["random", "grid", "optuna"] = "random"
    """How settings are chosen: random draws, the points of a grid, or Optuna's TPE sampler."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the search, not of the trainings."""
    budget: Budget
    """How much the sweep may cost."""
    cluster: ClusterConfig | None = None
    """Cluster settings of trials with a learner and simulators of their own; null makes each
    trial one process."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Values that each searched setting may take, by dotted name."""

    @pydantic.field_validator("scheduler", mode="before")
    @classmethod
    def _scheduler_may_be_a_name(cls, given: object) -> object:
        return {"type": given} if isinstance(given, str) else given

    def base(self) -> Config:
        """Returns the settings that all trials share."""
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
        """Returns the settings of one trial; raises ConfigError for values that are not allowed."""
        legal = {name: self.space[name].legal(sample[name]) for name in self.space}
        changes = nested(legal)
        cluster = changes.pop("cluster", None)
        config = parse_config(merge(self.base().model_dump(), changes))
        if self.cluster is None and cluster is None:
            return config, None
        return config, _cluster_settings(self.cluster, cluster or {})

    def sample_of(self, config: Mapping[str, Any]) -> Sample:
        """Returns only the searched settings, as plain values."""
        return {name: self.space[name].legal(config[name]) for name in self.space}

    @property
    def direction(self) -> Goal:
        """Whether a lower or a higher value of the metric is better."""
        return self.goal or {**RACE_METRICS, **ENVIRONMENT_METRICS}[self.metric]

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.budget.trials or self.points()

    def points(self) -> int:
        """Returns the number of points of a grid."""
        count = 1
        for dimension in self.space.values():
            count *= len(dimension.extremes())
        return count


def _cluster_settings(base: ClusterConfig | None, changes: Mapping[str, Any]) -> ClusterConfig:
    tree = (base or ClusterConfig()).model_dump() | dict(changes)
    try:
        config = ClusterConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, ClusterConfig, "cluster.")) from error
    if not isinstance(config.simulators, int):  # None or "auto"
        raise ConfigError("cluster.simulators: give the number of simulators of each trial")
    if config.address is not None:
        raise ConfigError("cluster.address: name the cluster with --address instead")
    return config
