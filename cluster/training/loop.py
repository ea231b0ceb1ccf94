"""The training loop on Ray: keep simulators busy, feed the learner, evaluate, save, stop."""

import dataclasses
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.exceptions import RayError

from cluster.config import ClusterConfig
from cluster.runtime import ray_runtime
from cluster.training.evaluation import evaluate_newest, save
from cluster.training.fleet import Fleet
from cluster.training.learner_handle import LearnerHandle, LearnerLostError
from cluster.training.no_fleet import NoFleet
from cluster.training.ordered_loop import OrderedTraining, check_deterministic
from cluster.training.prometheus import ray_watcher
from cluster.training.weights import LagLimit
from rlcar.agents import algorithm_of, make_agent
from rlcar.config import Config
from rlcar.errors import NonFiniteError, UserError
from rlcar.evaluation.environment import make_evaluation, spec_of
from rlcar.runs.run import EvaluationListener, Run, Watcher
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.system import heartbeat, terminal
from rlcar.system.interrupt import TRAINING_STOPS, StopRequest
from rlcar.system.lease import hold
from rlcar.training.loop import TrainingOutcome
from rlcar.training.rollback import roll_back
from rlcar.types import Evaluation, Params

logger = logging.getLogger(__name__)

# How long the driver waits for blocks and reports before it checks deadlines and the stop request.
_POLL_S = 0.2
# How long a training that is asked to stop before its first train steps waits for the learner.
_COMPILATION_PATIENCE_S = 3.0


def train(
    config: Config,
    cluster: ClusterConfig,
    folder: Path,
    resume: checkpoint.Save | None = None,
    on_evaluated: EvaluationListener | None = None,
    *,
    watchers: Sequence[Watcher] = (),
) -> TrainingOutcome:
    """Trains on Ray until `config.training.env_steps`, or until it is asked to stop.

    A learner that is lost is replaced by one that continues from the newest checkpoint. After a
    NaN, the training returns to that checkpoint with a lower learning rate. Raises UserError for
    what the user can correct; earlier checkpoints stay as they were.
    """
    check_supported(config, cluster)
    restart_id = resume.env_steps if resume else 0  # differs from that of every earlier command
    with (
        hold(folder),
        terminal.outlived(folder / terminal.LOG),
        heartbeat.stage("supervising"),
        ray_runtime(cluster),
        StopRequest(TRAINING_STOPS) as stop,
        ray_watcher(config, folder) as through_ray,
    ):
        watchers = (*watchers, through_ray)
        policy = make_agent(config, spec_of(config)).policy
        evaluate = make_evaluation(config, policy, lambda: bool(stop))
        try:
            with Mirror(folder, config.training.storage) as mirror:
                if config.training.deterministic and not config.data.folder:
                    ordered = OrderedTraining(
                        cluster, folder, evaluate, stop, mirror, on_evaluated, watchers
                    )
                    return ordered.run(config, resume)
                with make_fleet(config, cluster, restart_id) as fleet:
                    training = _FleetTraining(
                        cluster, folder, evaluate, stop, mirror, on_evaluated, watchers, fleet
                    )
                    return training.run(config, resume)
        except RayError as error:
            raise UserError(
                f"the Ray cluster failed ({type(error).__name__}): continue from the newest "
                f"checkpoint with the options of this command and {_resume_options(folder)}"
            ) from error


def make_fleet(config: Config, cluster: ClusterConfig, restart_id: int) -> Fleet | NoFleet:
    """Returns the simulators, or what stands in for them where the learner reads recorded data."""
    if config.data.folder:
        return NoFleet(config)
    return Fleet(config, cluster, restart_id)


def check_supported(config: Config, cluster: ClusterConfig) -> None:
    """Raises UserError for settings that this loop cannot follow."""
    if config.training.blocks_per_call > 1:
        raise UserError(
            f"training.blocks_per_call = {config.training.blocks_per_call} compiles cars and "
            "learner into one program, which cannot run as separate processes: train with --local, "
            "or set it to 1"
        )
    if cluster.replay_shards and algorithm_of(config).is_on_policy:
        raise UserError(
            f"--cluster replay_shards={cluster.replay_shards}: {config.algorithm} has no replay "
            "buffer to spread, as it learns from each block once: leave this setting out"
        )
    if cluster.replay_shards and config.replay.on_device:
        raise UserError(
            f"--cluster replay_shards={cluster.replay_shards}: with replay.on_device the replay "
            "buffer is in the memory of the learner's device: leave one of the two out"
        )
    check_deterministic(config, cluster)


def _resume_options(folder: Path) -> str:
    return shlex.join(["--resume", str(folder)])


@dataclasses.dataclass
class _FleetTraining:
    """One training with a fleet of simulators, or recorded data, which outlives its learners."""

    cluster: ClusterConfig
    folder: Path
    evaluate: Callable[[Params], Evaluation | None]
    stop: StopRequest
    mirror: Mirror
    on_evaluated: EvaluationListener | None
    watchers: Sequence[Watcher]
    fleet: Fleet | NoFleet
    learner_restarts: int = 0
    restarts_in_a_row: int = 0  # without a checkpoint between them

    def __post_init__(self) -> None:
        self.lag = LagLimit(self.cluster.max_policy_lag_updates)

    def run(self, config: Config, resume: checkpoint.Save | None) -> TrainingOutcome:
        """Runs one leg after another; each begins at a checkpoint with a new learner."""
        checkpoints = self.folder / "checkpoints"
        while True:
            try:
                return self._run_leg(config, resume)
            except NonFiniteError as error:
                for watcher in self.watchers:
                    watcher.diverged()
                config, resume = roll_back(error, config, checkpoints)
            except LearnerLostError as loss:
                self._count_restart(loss)
                resume = checkpoint.latest_sound(checkpoints)
            self.fleet.stop_starting()

    def _run_leg(self, config: Config, resume: checkpoint.Save | None) -> TrainingOutcome:
        with LearnerHandle(config, self.cluster, resume, self.fleet.count_lost) as learner:
            self.fleet.start()
            is_started = learner.wait_until_started(self.fleet.free_cores, lambda: bool(self.stop))
            with Run(self.folder, config, resume, self.mirror, self.watchers) as run:
                if is_started:
                    self._learn(config, learner, run)
                if is_started and self._drains(learner, run):
                    run.log(learner.env_steps, learner.train_steps)
                    save(learner, run)
                return TrainingOutcome(run.summary(learner.env_steps), bool(self.stop))

    def _learn(self, config: Config, learner: LearnerHandle, run: Run) -> None:
        """Drives, learns and evaluates until the last env step, or until asked to stop."""
        if learner.env_steps == 0 and config.training.start_from:
            # The policy that it begins with may stay the best.
            evaluate_newest(learner, run, self.evaluate, self.on_evaluated)
        while not (self.stop or run.is_at_its_end(learner.env_steps)):
            if learner.free_places():
                self._hand_over_blocks(learner, run)
            # A fleet has waited for blocks already.
            waits = isinstance(self.fleet, NoFleet) or not learner.free_places()
            self._take_reports(learner, run, _POLL_S if waits else 0.0)
            if run.should_evaluate(learner.env_steps) and not evaluate_newest(
                learner, run, self.evaluate, self.on_evaluated
            ):
                return  # asked to stop, by a signal or by the listener
            if run.should_save():
                learner.begin_save(run.checkpoints.resolve(), run.meta())

    def _drains(self, learner: LearnerHandle, run: Run) -> bool:
        """Waits until the learner has taken all blocks.

        Returns False if it should stop while the learner compiles its first train steps, which may
        take longer than the notice before a machine is switched off. Nothing is lost then.
        """
        if self.stop:
            learner.drain()
        began_s = time.monotonic()
        while learner.is_busy():
            self._take_reports(learner, run, _POLL_S)
            is_late = time.monotonic() - began_s > _COMPILATION_PATIENCE_S
            if self.stop and is_late and learner.is_before_first_train_step():
                return False
        return True

    def _hand_over_blocks(self, learner: LearnerHandle, run: Run) -> None:
        """Hands finished blocks to the learner, as many as it has room for."""
        fleet = self.fleet
        if isinstance(fleet, NoFleet):
            for _ in range(
                fleet.requests(learner.env_steps, learner.blocks_in_flight(), learner.free_places())
            ):
                learner.learn_recorded()
            return
        fleet.request_blocks(learner.weights)
        for block in fleet.take_blocks(_POLL_S, most=learner.free_places()):
            run.drove(block.episodes)
            in_flight = fleet.max_in_flight()
            if not self.lag.is_too_old(block.weights_version, learner.train_steps, in_flight):
                learner.learn(block)

    def _take_reports(self, learner: LearnerHandle, run: Run, timeout_s: float) -> None:
        """Records what the learner has finished, and writes a row of metrics when one is due."""
        for report in learner.reports(timeout_s):
            self.lag.learned(report.updates)
            if report.episodes is not None:
                run.drove(report.episodes)
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

    def _count_restart(self, loss: LearnerLostError) -> None:
        self.learner_restarts += 1
        self.restarts_in_a_row += 1
        if self.restarts_in_a_row > self.cluster.most_restarts_in_a_row:
            raise UserError(
                f"the learner died {self.restarts_in_a_row} times without writing a checkpoint; "
                f"the last time: {loss}. Earlier checkpoints are intact: "
                f"{_resume_options(self.folder)}"
            ) from loss
        logger.warning("the learner is replaced: %s", loss)
