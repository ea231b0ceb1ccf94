"""One sweep, as a file of `tune_configs/` describes it: validated, resolved, and its trials."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cluster.config import ClusterConfig
from cluster.search_space import (
    Dimension,
    Sample,
    Value,
    corners,
    dotted_names,
    nested,
    require_known,
)
from rlcar.config import Config, make_config, merge, nearest, parse_config, read_yaml
from rlcar.errors import ConfigError
from rlcar.race_config import Section

Goal = Literal["min", "max"]

_SPEEDS: dict[str, Goal] = {
    "rollout/env_steps_per_s": "max",
    "learner/train_steps_per_s": "max",
    "run/train_seconds": "min",
}
_RACE_METRICS: dict[str, Goal] = {
    "evaluation/charged_lap_steps": "min",
    "evaluation/lap_rate": "max",
    "evaluation/progress": "max",
    **_SPEEDS,
}
_ENVIRONMENT_METRICS: dict[str, Goal] = {
    "evaluation/episode_reward": "max",
    "evaluation/episode_steps": "max",
    **_SPEEDS,
}
# The sweep decides these itself, or a change of them alone means nothing.
_NOT_SEARCHED = {
    "training.env_steps": "it is budget.env_steps",
    "preset": "write one sweep for each",
    "world": "write one sweep for each",
    "algorithm": "write one sweep for each",
}
_ALGORITHMS: tuple[str, ...] = get_args(Config.model_fields["algorithm"].annotation)
# A better trial's checkpoint cannot go on with others of these.
_NOT_POPULATED = ("race.", "environment.", "training.", "replay.capacity_env_steps", "cluster.")


class Budget(Section):
    """How much a sweep may cost."""

    env_steps: PositiveInt  # of each trial
    trials: PositiveInt | None = None  # None: as many as a grid has points
    concurrent: PositiveInt | None = None  # None: as many as the machines hold
    retries: NonNegativeInt = 3  # of one trial whose processes died
    # Of a trial that is one process; `cluster` says it of the others.
    cpus: PositiveFloat = 1.0
    gpus: NonNegativeFloat = 0.0


class NoScheduler(Section):
    """Lets every trial use its whole budget."""

    type: Literal["none"]


class AshaScheduler(Section):
    """Asynchronous successive halving (Li et al. 2020): stops what is behind at each rung."""

    type: Literal["asha"]
    grace_env_steps: PositiveInt | None = None  # the first rung; None: the first evaluation
    reduction_factor: float = Field(3.0, gt=1.0)  # one in so many goes on


class PbtScheduler(Section):
    """Population-based training (Jaderberg et al. 2017): the worst continue from the best."""

    type: Literal["pbt"]
    perturb_every_env_steps: PositiveInt
    quantile: float = Field(0.25, gt=0.0, le=0.5)  # that is replaced, and that replaces it
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
        return self.goal or {**_RACE_METRICS, **_ENVIRONMENT_METRICS}[self.metric]

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


def load_sweep(
    path: Path, *, trials: int | None = None, overrides: Mapping[str, Value] | None = None
) -> SweepConfig:
    """Reads and checks a sweep; `trials` and `overrides` (dotted settings) win over the file.

    Raises ConfigError, with the nearest known name, for whatever would fail later.
    """
    tree = {"name": path.stem, **read_yaml(path)}
    if trials is not None:
        tree = merge(tree, {"budget": {"trials": trials}})
    if overrides:
        tree = merge(tree, {"set": dict(overrides)})
    return parse_sweep(tree)


def parse_sweep(tree: Mapping[str, Any]) -> SweepConfig:
    """Validates a sweep, and that every corner of its space is a training that can run."""
    try:
        sweep = SweepConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_explain(one) for one in error.errors())) from error
    base = sweep.base()
    _check_metric(sweep, base)
    _check_search(sweep)
    _check_budget(sweep, base)
    cluster_names = [f"cluster.{name}" for name in ClusterConfig.model_fields if name != "address"]
    known = [*dotted_names(base.model_dump()), *cluster_names]
    require_known(list(sweep.space), known, base.algorithm)
    others = set(_ALGORITHMS) - {base.algorithm}
    for name in sweep.space:
        if name in _NOT_SEARCHED:
            raise ConfigError(f"space: {name} cannot be searched: {_NOT_SEARCHED[name]}")
        if name.partition(".")[0] in others:
            raise ConfigError(f"space: {name} means nothing to {base.algorithm}, which trains here")
    for sample in corners(sweep.space):
        try:
            sweep.settings(sample)
        except ConfigError as error:
            values = ", ".join(f"{name}={value}" for name, value in sample.items())
            raise ConfigError(f"space: a corner is no valid training ({values}): {error}") from None
    if isinstance(sweep.scheduler, PbtScheduler):
        _check_population(sweep)
    return sweep


def _check_metric(sweep: SweepConfig, base: Config) -> None:
    known = _ENVIRONMENT_METRICS if base.environment.id else _RACE_METRICS
    if sweep.metric not in known:
        raise ConfigError(f"metric: there is no {sweep.metric!r}{nearest(sweep.metric, [*known])}")


def _check_search(sweep: SweepConfig) -> None:
    if isinstance(sweep.scheduler, PbtScheduler) and sweep.search != "random":
        raise ConfigError(
            f"search: pbt moves its population by itself; use search: random, not {sweep.search}"
        )
    if sweep.search != "grid":
        if sweep.budget.trials is None:
            raise ConfigError(f"budget.trials: search {sweep.search} needs a number")
        return
    for name, dimension in sweep.space.items():
        if dimension.choice is None:
            raise ConfigError(f"space.{name}: a grid needs choice, not {dimension.kind}")
    if sweep.budget.trials not in (None, sweep.points()):
        raise ConfigError(
            f"budget.trials = {sweep.budget.trials}: this grid has {sweep.points()} points; leave "
            "trials out, or use search: random"
        )


def _check_budget(sweep: SweepConfig, base: Config) -> None:
    every, limit = base.training.evaluate_every_env_steps, sweep.budget.env_steps
    if every > limit:
        raise ConfigError(
            f"budget.env_steps = {limit}: a trial would end before its first evaluation; raise it, "
            f"or lower training.evaluate_every_env_steps ({every})"
        )
    if isinstance(sweep.scheduler, AshaScheduler):
        grace = sweep.scheduler.grace_env_steps
        if grace is not None and not every <= grace <= limit:
            raise ConfigError(
                f"scheduler.grace_env_steps = {grace}: it lies between the first evaluation "
                f"({every}) and budget.env_steps ({limit})"
            )
    if isinstance(sweep.scheduler, PbtScheduler):
        interval = sweep.scheduler.perturb_every_env_steps
        if not every <= interval < limit:
            raise ConfigError(
                f"scheduler.perturb_every_env_steps = {interval}: it lies between the first "
                f"evaluation ({every}) and budget.env_steps ({limit})"
            )
        if sweep.trials < 2:
            raise ConfigError("budget.trials = 1: pbt needs a population of at least 2")
        if sweep.budget.concurrent is not None:
            raise ConfigError(
                "budget.concurrent: a population takes turns by itself; leave it out, or give each "
                "trial more of the machine with budget.cpus"
            )


def _check_population(sweep: SweepConfig) -> None:
    """Raises ConfigError for a setting with which a checkpoint of another trial does not fit."""
    import jax  # a second to import, and this scheduler alone needs it

    from rlcar.agent import make_agent
    from rlcar.environment import spec_of

    def shapes(sample: Sample) -> Any:
        config, _ = sweep.settings(sample)
        state = jax.eval_shape(lambda: make_agent(config, spec_of(config)).learner.init(0))
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), state)

    first = {name: dimension.extremes()[0] for name, dimension in sweep.space.items()}
    expected = shapes(first)
    for name, dimension in sweep.space.items():
        changes = any(shapes(first | {name: one}) != expected for one in dimension.extremes()[1:])
        if changes or name.startswith(_NOT_POPULATED):
            raise ConfigError(
                f"space: {name} cannot change within a training, so a population cannot search it: "
                "use scheduler: asha"
            )


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


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    # Pydantic names the chosen kind of scheduler as if it were a setting.
    location = [part for part in location if part not in ("none", "asha", "pbt")]
    dotted = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _fields(location[:-1], error)
        return f"unknown setting {dotted!r}{nearest(location[-1], known)}"
    if error["type"] == "missing":
        return f"{dotted}: missing"
    value = error["input"]
    said = "" if isinstance(value, Mapping) else f" = {value!r}"
    return f"{dotted}{said}: {error['msg'].removeprefix('Value error, ')}"


def _fields(location: Sequence[str], error: Any) -> list[str]:
    """The names that a section of a sweep knows."""
    if not location:
        return list(SweepConfig.model_fields)
    sections: dict[str, tuple[type[Section], ...]] = {
        "budget": (Budget,),
        "cluster": (ClusterConfig,),
        "space": (Dimension,),
        "scheduler": tuple(
            one
            for one in (NoScheduler, AshaScheduler, PbtScheduler)
            if one.model_fields["type"].annotation == Literal[error["loc"][1]]
        ),
    }
    fields = [one.model_fields for one in sections[location[0]]]
    return list(itertools.chain.from_iterable(fields))
