"""Reads a sweep from its file, and refuses early whatever would fail later."""

from collections.abc import Mapping
from pathlib import Path

import pydantic

from cluster.config import ClusterConfig
from cluster.sweeps.config import (
    ENVIRONMENT_METRICS,
    RACE_METRICS,
    AshaScheduler,
    PbtScheduler,
    SweepConfig,
)
from cluster.sweeps.search_space import (
    Sample,
    Value,
    corners,
    dotted_names,
    require_known,
)
from rlcar.agents import ALGORITHMS
from rlcar.config import Config, merge
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain, nearest
from rlcar.settings.files import read_yaml

# Settings that the sweep decides itself, or that mean nothing when they change alone.
_NOT_SEARCHED = {
    "training.env_steps": "it is budget.env_steps",
    "preset": "write one sweep for each",
    "world": "write one sweep for each",
    "algorithm": "write one sweep for each",
}
# Settings that cannot change when a trial continues from the checkpoint of another.
_NOT_POPULATED = ("race.", "environment.", "training.", "replay.capacity_env_steps", "cluster.")


def load_sweep(
    path: Path, *, trials: int | None = None, overrides: Mapping[str, Value] | None = None
) -> SweepConfig:
    """Reads and checks a sweep; `trials` and `overrides` (dotted settings) replace what it says.

    Raises ConfigError, with the most similar name for an unknown one.
    """
    tree = {"name": path.stem, **read_yaml(path)}
    if trials is not None:
        tree = merge(tree, {"budget": {"trials": trials}})
    if overrides:
        tree = merge(tree, {"set": dict(overrides)})
    return parse_sweep(tree)


def parse_sweep(tree: Mapping[str, object]) -> SweepConfig:
    """Validates a sweep, and checks that every corner of its space gives valid settings."""
    try:
        sweep = SweepConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, SweepConfig)) from error
    base = sweep.base()
    _check_metric(sweep, base)
    _check_search(sweep)
    _check_budget(sweep, base)
    cluster_names = [f"cluster.{name}" for name in ClusterConfig.model_fields if name != "address"]
    known = [*dotted_names(base.model_dump()), *cluster_names]
    require_known(list(sweep.space), known, base.algorithm)
    others = set(ALGORITHMS) - {base.algorithm}
    for name in sweep.space:
        if name in _NOT_SEARCHED:
            raise ConfigError(f"space: {name} cannot be searched: {_NOT_SEARCHED[name]}")
        if name.partition(".")[0] in others:
            raise ConfigError(f"space: {name} has no effect, as the algorithm is {base.algorithm}")
    for sample in corners(sweep.space):
        try:
            sweep.settings(sample)
        except ConfigError as error:
            values = ", ".join(f"{name}={value}" for name, value in sample.items())
            raise ConfigError(f"space: invalid extreme values ({values}): {error}") from None
    if isinstance(sweep.scheduler, PbtScheduler):
        _check_population(sweep)
    return sweep


def _check_metric(sweep: SweepConfig, base: Config) -> None:
    known = RACE_METRICS if base.is_race else ENVIRONMENT_METRICS
    if sweep.metric not in known:
        raise ConfigError(
            f"metric: unknown metric {sweep.metric!r}{nearest(sweep.metric, [*known])}"
        )


def _check_search(sweep: SweepConfig) -> None:
    if isinstance(sweep.scheduler, PbtScheduler) and sweep.search != "random":
        raise ConfigError(
            f"search: pbt chooses settings itself; use search: random, not {sweep.search}"
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
                f"scheduler.grace_env_steps = {grace}: it must lie between the first evaluation "
                f"({every}) and budget.env_steps ({limit})"
            )
    if isinstance(sweep.scheduler, PbtScheduler):
        interval = sweep.scheduler.perturb_every_env_steps
        if not every <= interval < limit:
            raise ConfigError(
                f"scheduler.perturb_every_env_steps = {interval}: it must lie between the first "
                f"evaluation ({every}) and budget.env_steps ({limit})"
            )
        if sweep.trials < 2:
            raise ConfigError("budget.trials = 1: pbt needs a population of at least 2")
        if sweep.budget.concurrent is not None:
            raise ConfigError(
                "budget.concurrent: pbt decides itself how many trials run at once; leave it out, "
                "or reserve more cores for each trial with budget.cpus"
            )


def _check_population(sweep: SweepConfig) -> None:
    """Raises ConfigError for a setting that does not fit the checkpoint of another trial."""
    import jax  # takes a second to import, and only this scheduler needs it

    from rlcar.agents import make_agent
    from rlcar.evaluation.environment import spec_of

    def shapes(sample: Sample) -> object:
        config, _ = sweep.settings(sample)
        state = jax.eval_shape(lambda: make_agent(config, spec_of(config)).learner.init(0))
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), state)

    first = {name: dimension.extremes()[0] for name, dimension in sweep.space.items()}
    expected = shapes(first)
    for name, dimension in sweep.space.items():
        changes = any(
            shapes(first | {name: value}) != expected for value in dimension.extremes()[1:]
        )
        if changes or name.startswith(_NOT_POPULATED):
            raise ConfigError(
                f"space: {name} cannot change within a training, so a population cannot search it: "
                "use scheduler: asha"
            )
