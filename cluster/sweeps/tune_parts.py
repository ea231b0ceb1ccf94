"""A sweep in the terms of Ray Tune: what to draw, when to stop, what a trial needs."""

import logging
import math
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import ConcurrencyLimiter

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, selector
from cluster.sweeps import search as sweep_search
from cluster.sweeps.config import AshaScheduler, PbtScheduler, SweepConfig
from cluster.sweeps.search_space import Dimension, Sample, corners
from cluster.training.learner_handle import learner_gpus

logger = logging.getLogger(__name__)


def search_space(sweep: SweepConfig) -> dict[str, Any]:
    """What Tune draws the settings of a trial from."""
    return {name: domain(sweep, dimension) for name, dimension in sweep.space.items()}


def domain(sweep: SweepConfig, dimension: Dimension) -> Any:
    """One setting's part of it."""
    if dimension.choice is not None:
        values = list(dimension.choice)
        return tune.grid_search(values) if sweep.search == "grid" else tune.choice(values)
    low, high = dimension.bounds
    if dimension.kind == "integer":
        return tune.randint(low, high + 1)
    return tune.uniform(low, high) if dimension.kind == "uniform" else tune.loguniform(low, high)


def searcher(sweep: SweepConfig, folder: Path) -> Any:
    """What chooses the next trial's settings; trials lie in `folder`."""
    if sweep.search != "optuna":
        return sweep_search.variants(
            folder, max_concurrent=sweep.budget.concurrent or 0, random_state=sweep.seed
        )
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Ten random trials, Optuna's own default, would be all that a small sweep has.
    sampler = optuna.samplers.TPESampler(
        seed=sweep.seed, n_startup_trials=min(10, max(3, sweep.trials // 4))
    )
    search = OptunaSearch(metric=sweep.metric, mode=sweep.direction, sampler=sampler)
    limit = sweep.budget.concurrent
    return sweep_search.search(folder, ConcurrencyLimiter(search, limit) if limit else search)


def scheduler(sweep: SweepConfig) -> TrialScheduler:
    """What stops trials early, or lets one continue from another."""
    given = sweep.scheduler
    if isinstance(given, AshaScheduler):
        first = sweep.base().training.evaluate_every_env_steps
        return ASHAScheduler(
            time_attr="env_steps",
            metric=sweep.metric,
            mode=sweep.direction,
            max_t=sweep.budget.env_steps,
            grace_period=given.grace_env_steps or first,
            reduction_factor=given.reduction_factor,
        )
    if isinstance(given, PbtScheduler):
        # The seed makes members differ; changed on the way it would mean nothing.
        searched = {name: one for name, one in sweep.space.items() if name != "seed"}
        return PopulationBasedTraining(
            time_attr="env_steps",
            metric=sweep.metric,
            mode=sweep.direction,
            perturbation_interval=given.perturb_every_env_steps,
            quantile_fraction=given.quantile,
            resample_probability=given.resample_probability,
            hyperparam_mutations={
                name: list(one.choice) if one.choice is not None else domain(sweep, one)
                for name, one in searched.items()
            },
            # Tune multiplies without regard to the range.
            custom_explore_fn=sweep.sample_of,
            log_config=False,
        )
    return FIFOScheduler()


def checkpoints_kept(sweep: SweepConfig) -> int:
    """How many of each trial are kept.

    A member that waits for its turn to go on from another's checkpoint finds it gone if the other
    has had its own turn meanwhile, and kept too few.
    """
    if not isinstance(sweep.scheduler, PbtScheduler):
        return 2
    every = sweep.base().training.evaluate_every_env_steps
    return 2 + 3 * math.ceil(sweep.scheduler.perturb_every_env_steps / every)


def resources(sweep: SweepConfig, sample: Sample) -> PlacementGroupFactory:
    """A place for the trial itself, and one for each process that it starts."""
    config, cluster = sweep.settings(sample)
    if cluster is None:
        budget = sweep.budget
        gpu = {"GPU": budget.gpus} if budget.gpus else {}
        return PlacementGroupFactory([{"CPU": budget.cpus} | gpu])
    gpus = learner_gpus(config, cluster)
    learner = {"CPU": cluster.learner_cpus} | ({"GPU": gpus} if gpus else {})
    number, nodes = _simulators(cluster), nodes_now()
    labels = [selector("learner", nodes), *[selector("sim", nodes)] * number]
    label_options: dict[str, Any] = {"bundle_label_selector": labels} if any(labels) else {}
    # The first is the trial's own: it passes on refs and evaluates, and mostly waits.
    return PlacementGroupFactory(
        [{}, learner, *[{"CPU": cluster.simulator_cpus}] * number],
        **label_options,
    )


def largest_trial(sweep: SweepConfig) -> ClusterConfig | None:
    """The trial that needs the most cores; None where each is one process."""
    if sweep.cluster is None and not any(name.startswith("cluster.") for name in sweep.space):
        return None
    every = (sweep.settings(sample)[1] for sample in corners(sweep.space))
    return max((one for one in every if one is not None), key=_cpus)


def _simulators(cluster: ClusterConfig) -> int:
    assert isinstance(cluster.simulators, int), cluster.simulators  # `SweepConfig` sees to it
    return cluster.simulators


def _cpus(cluster: ClusterConfig) -> float:
    return cluster.learner_cpus + cluster.simulator_cpus * _simulators(cluster)


def runtime_config(sweep: SweepConfig, largest: ClusterConfig | None) -> ClusterConfig:
    """What a Ray of our own must hold: the largest trial, whatever the machine has."""
    if largest is None:
        return ClusterConfig(learner_cpus=sweep.budget.cpus, simulator_cpus=1e-4)
    return largest


def warn_if_crowded(sweep: SweepConfig, largest: ClusterConfig | None) -> None:
    """Says so when not even one trial fits: Tune would wait without a word."""
    needed = sweep.budget.cpus if largest is None else _cpus(largest)
    present = ray.cluster_resources().get("CPU", 0.0)
    if needed > present:
        logger.warning(
            "a trial needs %g CPUs and the cluster has %g: it waits until there are more; lower "
            "cluster.simulators or cluster.simulator_cpus",
            needed,
            present,
        )
