"""Translates a sweep for Ray Tune: search space, search algorithm, scheduler, resources."""

import logging
import math
from collections.abc import Iterable
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
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm
from ray.tune.search.sample import Domain

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, selector
from cluster.sweeps import search as sweep_search
from cluster.sweeps.config import AshaScheduler, PbtScheduler, SweepConfig
from cluster.sweeps.search_space import Dimension, Sample, Value, corners
from cluster.training.learner_handle import learner_gpus

logger = logging.getLogger(__name__)

_NO_CORES = 1e-4  # the least that the setting allows

# Optuna begins with a quarter of the trials at random, within these limits.
_FEWEST_RANDOM_TRIALS, _MOST_RANDOM_TRIALS = 3, 10


def search_space(sweep: SweepConfig) -> dict[str, Domain | dict[str, Iterable[Value]]]:
    """Returns the search space from which Tune draws the settings of a trial."""
    return {name: domain(sweep, dimension) for name, dimension in sweep.space.items()}


def domain(sweep: SweepConfig, dimension: Dimension) -> Domain | dict[str, Iterable[Value]]:
    """Returns the values of one setting as Tune describes them."""
    if dimension.choice is not None:
        values = list(dimension.choice)
        return tune.grid_search(values) if sweep.search == "grid" else tune.choice(values)
    low, high = dimension.bounds
    if dimension.kind == "integer":
        return tune.randint(low, high + 1)
    return tune.uniform(low, high) if dimension.kind == "uniform" else tune.loguniform(low, high)


def searcher(sweep: SweepConfig, folder: Path) -> SearchAlgorithm:
    """Returns the search algorithm; it creates trials in `folder`."""
    if sweep.search != "optuna":
        return sweep_search.variants(
            folder, max_concurrent=sweep.budget.concurrent or 0, random_state=sweep.seed
        )
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna begins with ten random trials by default, which may be all trials of a small sweep.
    random_trials = min(_MOST_RANDOM_TRIALS, max(_FEWEST_RANDOM_TRIALS, sweep.trials // 4))
    sampler = optuna.samplers.TPESampler(seed=sweep.seed, n_startup_trials=random_trials)
    search = OptunaSearch(metric=sweep.metric, mode=sweep.direction, sampler=sampler)
    limit = sweep.budget.concurrent
    return sweep_search.search(folder, ConcurrencyLimiter(search, limit) if limit else search)


def scheduler(sweep: SweepConfig) -> TrialScheduler:
    """Returns the scheduler, which stops trials early or lets one continue from another."""
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
        # The seed makes trials differ from the start; a later change of it would have no effect.
        searched = {name: values for name, values in sweep.space.items() if name != "seed"}
        return PopulationBasedTraining(
            time_attr="env_steps",
            metric=sweep.metric,
            mode=sweep.direction,
            perturbation_interval=given.perturb_every_env_steps,
            quantile_fraction=given.quantile,
            resample_probability=given.resample_probability,
            hyperparam_mutations={
                name: list(values.choice) if values.choice is not None else domain(sweep, values)
                for name, values in searched.items()
            },
            # Tune multiplies values without regard to their range; this clips them.
            custom_explore_fn=sweep.sample_of,
            log_config=False,
        )
    return FIFOScheduler()


def checkpoints_kept(sweep: SweepConfig) -> int:
    """Returns how many checkpoints of each trial Tune keeps.

    With pbt, a trial may wait for its turn to continue from another trial's checkpoint. Meanwhile
    the other trial may have its own turn and write new checkpoints.
    """
    if not isinstance(sweep.scheduler, PbtScheduler):
        return 2
    every = sweep.base().training.evaluate_every_env_steps
    return 2 + 3 * math.ceil(sweep.scheduler.perturb_every_env_steps / every)


def resources(sweep: SweepConfig, sample: Sample) -> PlacementGroupFactory:
    """Returns the resources of a trial: a bundle for itself, and one for each process it starts."""
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
    # The first bundle is for the trial itself, which mostly waits: it needs no core of its own.
    return PlacementGroupFactory(
        [{}, learner, *[{"CPU": cluster.simulator_cpus}] * number],
        **label_options,
    )


def largest_trial(sweep: SweepConfig) -> ClusterConfig | None:
    """Returns the cluster settings of the trial with the most cores; None without such settings."""
    if sweep.cluster is None and not any(name.startswith("cluster.") for name in sweep.space):
        return None
    every = (sweep.settings(sample)[1] for sample in corners(sweep.space))
    return max((cluster for cluster in every if cluster is not None), key=_cpus)


def _simulators(cluster: ClusterConfig) -> int:
    assert isinstance(cluster.simulators, int), cluster.simulators  # `SweepConfig` ensures it
    return cluster.simulators


def _cpus(cluster: ClusterConfig) -> float:
    return cluster.learner_cpus + cluster.simulator_cpus * _simulators(cluster)


def runtime_config(sweep: SweepConfig, largest: ClusterConfig | None) -> ClusterConfig:
    """Returns settings for a Ray that is large enough for one trial, whatever the machine has."""
    if largest is None:
        return ClusterConfig(learner_cpus=sweep.budget.cpus, simulator_cpus=_NO_CORES)
    return largest


def warn_if_crowded(sweep: SweepConfig, largest: ClusterConfig | None) -> None:
    """Logs a warning if not even one trial fits, as Tune would wait without a message."""
    needed = sweep.budget.cpus if largest is None else _cpus(largest)
    present = ray.cluster_resources().get("CPU", 0.0)
    if needed > present:
        logger.warning(
            "a trial needs %g CPU cores and the cluster has %g: it waits until nodes join; lower "
            "cluster.simulators or cluster.simulator_cpus, or budget.cpus",
            needed,
            present,
        )
