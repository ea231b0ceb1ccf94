"""The training loop with processes: keep simulators busy, feed the learner, save, stop."""

import dataclasses
import logging
import shlex
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import RayError

from cluster.config import ClusterConfig
from cluster.runtime import ray_runtime
from cluster.training.fleet import Fleet
from cluster.training.learner import LearnerLostError, RemoteLearner
from cluster.training.ordered_loop import OrderedTraining, refuse_what_is_not_deterministic
from cluster.training.prometheus import PrometheusWatcher
from cluster.training.weights import LagLimit
from rlcar.agents import algorithm_of, make_agent
from rlcar.config import Config
from rlcar.errors import NonFiniteError, UserError
from rlcar.evaluation.environment import make_evaluation, spec_of
from rlcar.runs.run import EvaluationListener, Run
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.system import heartbeat, terminal
from rlcar.system.interrupt import TRAINING, StopRequest
from rlcar.system.lease import hold
from rlcar.training.loop import Outcome
from rlcar.training.rollback import roll_back
from rlcar.types import Evaluation, Params, Weights

logger = logging.getLogger(__name__)

# How long the driver waits for news before it looks at deadlines and the stop request again.
_TICK_S = 0.2


def train(
    config: Config,
    cluster: ClusterConfig,
    folder: Path,
    resume: checkpoint.Save | None = None,
    on_evaluated: EvaluationListener | None = None,
) -> Outcome:
    """Trains on Ray until `config.training.env_steps`, or until it is asked to stop.

    A learner that dies begins anew at the newest checkpoint; a NaN does so with a lower learning
    rate. Raises UserError for what the user can mend; earlier checkpoints stay as they were.
    """
    if config.training.blocks_per_call > 1:
        raise UserError(
            f"training.blocks_per_call = {config.training.blocks_per_call} makes one program of "
            "cars and learner: train with --local, or set it to 1"
        )
    if cluster.replay_shards and algorithm_of(config).is_on_policy:
        raise UserError(
            f"--cluster replay_shards={cluster.replay_shards}: the on-policy algorithm "
            f"{config.algorithm} keeps only one block, which cannot be spread; set it to 0"
        )
    if cluster.replay_shards and config.replay.on_device:
        raise UserError(
            f"--cluster replay_shards={cluster.replay_shards}: with replay.on_device the replay "
            "lies in the learner's device; leave one of the two out"
        )
    refuse_what_is_not_deterministic(config, cluster)
    epoch = resume.env_steps if resume else 0  # never that of an earlier leg
    with (
        hold(folder),
        terminal.outlived(folder / terminal.LOG),
        heartbeat.stage("supervising"),
        ray_runtime(cluster),
        StopRequest(TRAINING) as stop,
    ):
        policy = make_agent(config, spec_of(config)).policy
        evaluate = make_evaluation(config, policy, lambda: bool(stop))
        try:
            if config.training.deterministic:
                with Mirror(folder, config.training.storage) as mirror:
                    parts = (cluster, folder, evaluate, stop, mirror, on_evaluated)
                    return OrderedTraining(*parts).run(config, resume)
            with (
                Mirror(folder, config.training.storage) as mirror,
                Fleet(config, cluster, epoch) as fleet,
            ):
                lag = LagLimit(cluster.max_policy_lag_updates)
                held = (cluster, folder, evaluate, stop, mirror, fleet, on_evaluated, lag)
                return _Training(*held).run(config, resume)
        except RayError as error:
            raise UserError(
                f"the Ray cluster failed ({type(error).__name__}): continue from the newest "
                f"checkpoint with the options of this command and {_resume(folder)}"
            ) from error


def _resume(folder: Path) -> str:
    return shlex.join(["--resume", str(folder)])


@dataclasses.dataclass
class _Training:
    """What outlives a learner."""

    cluster: ClusterConfig
    folder: Path
    evaluate: Callable[[Params], Evaluation | None]
    stop: StopRequest
    mirror: Mirror
    fleet: Fleet
    on_evaluated: EvaluationListener | None
    lag: LagLimit
    learner_restarts: int = 0
    restarts_in_a_row: int = 0  # without a checkpoint between them

    def run(self, config: Config, resume: checkpoint.Save | None) -> Outcome:
        """One leg after another: each begins at a checkpoint, with a learner of its own."""
        checkpoints = self.folder / "checkpoints"
        while True:
            try:
                return self._leg(config, resume)
            except NonFiniteError as error:
                config, resume = roll_back(error, config, checkpoints)
            except LearnerLostError as death:
                self._count(death)
                resume = checkpoint.latest_sound(checkpoints)
            self.fleet.step_back()

    def _leg(self, config: Config, resume: checkpoint.Save | None) -> Outcome:
        watcher = PrometheusWatcher(self.folder.name)
        fleet, lag = self.fleet, self.lag
        with RemoteLearner(config, self.cluster, resume, fleet.count_lost) as learner:
            fleet.start()
            learner.begin(fleet.make_room)
            with Run(self.folder, config, resume, self.mirror, watcher) as run:
                while learner.env_steps < config.training.env_steps and not self.stop:
                    if learner.room():
                        fleet.feed(learner.weights)
                        for block in fleet.blocks(_TICK_S, most=learner.room()):
                            run.drove(block.episodes)
                            if not lag.is_too_old(block.version, learner.train_steps, fleet.room()):
                                learner.learn(block)
                    self._hear(learner, run, 0.0 if learner.room() else _TICK_S)
                    if run.should_evaluate(learner.env_steps):
                        weights: Weights = learner.fetch_weights()
                        evaluation = self.evaluate(weights.params)
                        if evaluation is None:  # asked to stop
                            break
                        run.evaluated(learner.env_steps, weights, evaluation)
                        if self.on_evaluated is not None:
                            learner.save(run.checkpoints.resolve(), run.meta())
                            run.saved()
                            self.on_evaluated(run.figures(learner.env_steps))
                    if run.should_save():
                        learner.begin_save(run.checkpoints.resolve(), run.meta())
                if self.stop:
                    learner.drain()
                while learner.is_busy():
                    self._hear(learner, run, _TICK_S)
                run.log(learner.env_steps, learner.train_steps)
                learner.save(run.checkpoints.resolve(), run.meta())
                run.saved()
                return Outcome(run.summary(learner.env_steps), bool(self.stop))

    def _hear(self, learner: RemoteLearner, run: Run, timeout_s: float) -> None:
        """Takes in what the learner has finished, and notes it."""
        for report in learner.reports(timeout_s):
            self.lag.learned(report.updates)
            run.trained(report.updates, report.metrics | self._metrics())
        if learner.has_saved():
            self.restarts_in_a_row = 0
            run.saved()
        if run.should_log():
            run.log(learner.env_steps, learner.train_steps)

    def _metrics(self) -> dict[str, float]:
        return self.fleet.metrics() | {
            "cluster/learner_restarts": self.learner_restarts,
            "cluster/blocks_dropped": self.lag.dropped,
        }

    def _count(self, death: LearnerLostError) -> None:
        self.learner_restarts += 1
        self.restarts_in_a_row += 1
        if self.restarts_in_a_row > self.cluster.most_restarts_in_a_row:
            raise UserError(
                f"the learner died {self.restarts_in_a_row} times without writing a checkpoint; "
                f"the last time: {death}. Earlier checkpoints are intact: {_resume(self.folder)}"
            ) from death
        logger.warning("the learner is replaced: %s", death)
