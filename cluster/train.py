"""The loop of `rlcar.train` with processes: keep simulators busy, feed the learner, save, stop."""

import logging
import os
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.fleet import Fleet
from cluster.learner_actor import LearnerActor
from cluster.prometheus import PrometheusWatcher
from cluster.runtime import ray_runtime
from rlcar.agent import make_agent
from rlcar.checkpoint import Save
from rlcar.config import Config
from rlcar.environment import make_evaluation, spec_of
from rlcar.errors import UserError
from rlcar.interrupt import StopRequest
from rlcar.metrics import Rate
from rlcar.run import EvaluationListener, Run
from rlcar.train import Outcome
from rlcar.types import Weights

logger = logging.getLogger(__name__)

# How long the driver waits for news before it looks at deadlines and the stop request again.
_TICK_S = 0.2


def train(
    config: Config,
    cluster: ClusterConfig,
    folder: Path,
    resume: Save | None = None,
    on_evaluated: EvaluationListener | None = None,
) -> Outcome:
    """Trains on Ray until `config.training.env_steps`, or until it is asked to stop.

    Raises UserError for what the user can mend; earlier checkpoints stay as they were.
    """
    if config.training.blocks_per_call > 1:
        raise UserError(
            f"training.blocks_per_call = {config.training.blocks_per_call} makes one program of "
            "cars and learner: train with --local, or set it to 1"
        )
    with ray_runtime(cluster):
        loop = _Loop(config, cluster, folder, resume)
        try:
            return loop.run(on_evaluated)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except RayError as error:
            raise UserError(
                f"the learner died ({type(error).__name__}): continue from the newest checkpoint "
                f"with --resume {folder}"
            ) from error
        finally:
            loop.close()


class _Loop:
    """What the driver holds: the fleet, the learner, and the refs between them."""

    def __init__(self, config: Config, cluster: ClusterConfig, folder: Path, resume: Save | None):
        self._config, self._cluster, self._resume = config, cluster, resume
        self._folder = folder
        policy = make_agent(config, spec_of(config)).policy
        self._evaluate = make_evaluation(config, policy)
        self._learner = _start_learner(config, cluster)
        start = self._learner.start.options(num_returns=2)
        self._first_counters, self._weights = start.remote(resume)
        self._counters: dict[str, int] = {}
        self._learning: list[tuple[Any, Any]] = []  # (ref of the report, ref of the weights)
        epoch = resume.env_steps if resume else 0  # never that of an earlier leg
        self._fleet = Fleet(config, cluster, _number_of_simulators(cluster), epoch)
        self._learner_busy = Rate()

    def run(self, on_evaluated: EvaluationListener | None = None) -> Outcome:
        """Drives both until done; the checkpoint at the end is written whatever ended it."""
        limit = self._config.training.env_steps
        self._counters = ray.get(self._first_counters)
        watcher = PrometheusWatcher(self._folder.name)
        with Run(self._folder, self._config, self._resume, watcher) as run, StopRequest() as stop:
            while self._counters["env_steps"] < limit and not stop:
                if len(self._learning) < self._cluster.learner_queue:
                    self._fleet.feed(self._weights)
                    for trajectory, episodes in self._fleet.blocks(_TICK_S):
                        run.drove(episodes)
                        learn = self._learner.learn.options(num_returns=2)
                        self._learning.append(learn.remote(trajectory))
                full = len(self._learning) >= self._cluster.learner_queue
                self._hear_learner(run, _TICK_S if full else 0.0)
                if run.should_log():
                    run.log(self._counters["env_steps"], self._counters["train_steps"])
                if run.should_evaluate(self._counters["env_steps"]):
                    weights: Weights = ray.get(self._weights)
                    run.evaluated(
                        self._counters["env_steps"], weights, self._evaluate(weights.params)
                    )
                    if on_evaluated is not None:
                        self._save(run)
                        on_evaluated(run.figures(self._counters["env_steps"]))
                if run.should_save():
                    self._save(run)
            while self._learning:
                self._hear_learner(run, _TICK_S)
            run.log(self._counters["env_steps"], self._counters["train_steps"])
            self._save(run)
            return Outcome(run.summary(self._counters["env_steps"]), bool(stop))

    def close(self) -> None:
        """Ends every process: a cluster that was only joined would keep them."""
        self._fleet.stop()
        ray.kill(self._learner)

    def _hear_learner(self, run: Run, timeout_s: float) -> None:
        """Takes in what the learner finishes, oldest first; waits `timeout_s` for the oldest."""
        while self._learning:
            # The oldest alone: of several, `ray.wait` may name a later one again and again.
            done, _ = ray.wait([self._learning[0][0]], timeout=timeout_s)
            if not done:
                return
            report_ref, weights = self._learning.pop(0)
            timeout_s = 0.0
            try:
                report = ray.get(report_ref)
            except RayTaskError as error:
                if not isinstance(error.cause, RayError):
                    raise  # the learner's own words
                # The block died with its host before it reached the learner, which is well.
                logger.warning("a block is lost: %s", type(error.cause).__name__)
                continue
            self._weights = weights
            self._counters = {name: report[name] for name in ("env_steps", "train_steps")}
            self._learner_busy.add(report["busy_s"])
            metrics = report["metrics"] | {
                "cluster/learner_busy_share": min(1.0, self._learner_busy.per_s()),
                "cluster/simulators_busy_share": self._fleet.busy_share(),
                "cluster/simulator_restarts": self._fleet.restarts,
                "cluster/simulators_delivering": self._fleet.delivering(),
            }
            run.trained(report["updates"], metrics)

    def _save(self, run: Run) -> None:
        keep = self._config.training.checkpoints_kept
        ray.get(self._learner.save.remote(run.checkpoints.resolve(), run.meta(), keep))


def _start_learner(config: Config, cluster: ClusterConfig) -> Any:
    gpus = cluster.learner_gpus
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    options = LearnerActor.options(num_cpus=cluster.learner_cpus, num_gpus=gpus)
    return options.remote(config)


def _number_of_simulators(cluster: ClusterConfig) -> int:
    if cluster.simulators is not None:
        return cluster.simulators
    cores = ray.cluster_resources().get("CPU", os.cpu_count() or 1)
    return max(1, int((cores - cluster.learner_cpus) / cluster.simulator_cpus))
