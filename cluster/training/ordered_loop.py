"""The deterministic loop on Ray: two runs with equal settings are equal bit for bit.

Simulators take turns, each block is driven with a fixed version of the weights, the learner learns
from one block at a time, and evaluations come after fixed blocks. Timing has no influence on what
is learned. For that reason a lost process cannot be replaced.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.training.evaluation import evaluate_newest, save
from cluster.training.learner_handle import LearnerHandle, LearnerLostError
from cluster.training.ordered_fleet import OrderedFleet, SimulatorLostError
from rlcar.config import Config
from rlcar.errors import NonFiniteError, UserError
from rlcar.runs.run import EvaluationListener, Run, Watcher
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.system.interrupt import StopRequest
from rlcar.training.loop import TrainingOutcome
from rlcar.training.rollback import roll_back
from rlcar.types import Evaluation, Params

# How long the driver waits for a block before it checks the stop request.
_POLL_S = 0.2


def check_deterministic(config: Config, cluster: ClusterConfig) -> None:
    """Raises UserError for a deterministic training with settings that prevent equal runs."""
    if config.training.deterministic and cluster.simulators == "auto":
        raise UserError(
            "training.deterministic needs a fixed number of simulators, and --simulators auto "
            "makes it follow the nodes: give a number"
        )


@dataclasses.dataclass
class OrderedTraining:
    """One deterministic training, from its start or a checkpoint to its end."""

    cluster: ClusterConfig
    folder: Path
    evaluate: Callable[[Params], Evaluation | None]
    stop: StopRequest
    mirror: Mirror
    on_evaluated: EvaluationListener | None
    watchers: Sequence[Watcher]

    def run(self, config: Config, resume: checkpoint.Save | None) -> TrainingOutcome:
        """Trains until `config.training.env_steps`, or until it is asked to stop."""
        restart_id = resume.env_steps if resume else 0  # differs from that of every earlier command
        try:
            with (
                # A lost block ends the training (`_wait_for_report`): there is nothing to count.
                LearnerHandle(config, self.cluster, resume, lambda blocks: None) as learner,
                OrderedFleet(config, self.cluster, restart_id) as fleet,
            ):
                learner.wait_until_started(lambda is_urgent: None, lambda: False)
                with Run(self.folder, config, resume, self.mirror, self.watchers) as run:
                    try:
                        self._learn(config, learner, fleet, run)
                    except SimulatorLostError as loss:
                        with contextlib.suppress(LearnerLostError):
                            save(learner, run)
                        raise UserError(self._stopped(str(loss))) from loss
                    run.log(learner.env_steps, learner.train_steps)
                    save(learner, run)
                    return TrainingOutcome(run.summary(learner.env_steps), bool(self.stop))
        except NonFiniteError as error:
            for watcher in self.watchers:
                watcher.diverged()
            roll_back(error, config, self.folder / "checkpoints")  # raises, with the reason
            raise
        except LearnerLostError as loss:
            raise UserError(self._stopped(f"the learner: {loss}")) from loss

    def _stopped(self, reason: str) -> str:
        return (
            f"the training stopped because a process was lost ({reason}). With "
            "training.deterministic nothing is replaced, as a replacement would not repeat the "
            f"same run: continue from the last checkpoint with --resume {self.folder}"
        )

    def _learn(self, config: Config, learner: LearnerHandle, fleet: OrderedFleet, run: Run) -> None:
        fleet.request_all(learner.weights)
        while not (self.stop or run.is_at_its_end(learner.env_steps)):
            block = fleet.take_block(_POLL_S)
            if block is None:
                continue
            run.drove(block.episodes)
            learner.learn(block)
            self._wait_for_report(learner, fleet, run)
            fleet.request(learner.weights)
            if run.should_log():
                run.log(learner.env_steps, learner.train_steps)
            if run.should_evaluate(learner.env_steps) and not evaluate_newest(
                learner, run, self.evaluate, self.on_evaluated
            ):
                return
            if run.should_save():
                learner.begin_save(run.checkpoints.resolve(), run.meta())

    def _wait_for_report(self, learner: LearnerHandle, fleet: OrderedFleet, run: Run) -> None:
        """Waits until the learner has learned from the block that it has."""
        has_report = False
        while learner.is_busy():
            for report in learner.reports(_POLL_S):
                has_report = True
                run.trained(report.updates, report.metrics | fleet.metrics())
        if not has_report:
            raise SimulatorLostError("a block was lost on its way to the learner")
        if learner.has_saved():
            run.saved()
