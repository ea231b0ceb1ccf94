"""The training loop in one process: drive, insert, train, evaluate, save."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.devices.selection import everything_on_cpu
from rlcar.errors import NonFiniteError
from rlcar.evaluation.environment import EnvironmentRollout, make_evaluation, make_rollout, spec_of
from rlcar.rollout.compiled import Rollout
from rlcar.runs.run import EvaluationListener, Run, Watcher
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.system import heartbeat, logs, terminal
from rlcar.system.interrupt import TRAINING_STOPS, StopRequest
from rlcar.system.lease import hold
from rlcar.training.recorded import open_recorded
from rlcar.training.rollback import roll_back
from rlcar.training.trainer import Trainer, check_replay_memory
from rlcar.types import Policy


class TrainingOutcome(NamedTuple):
    """Result of a training."""

    summary: dict[str, float | None]
    interrupted: bool


def train(
    config: Config,
    folder: Path,
    resume: checkpoint.Save | None = None,
    on_evaluated: EvaluationListener | None = None,
    *,
    watchers: Sequence[Watcher] = (),
) -> TrainingOutcome:
    """Trains until `config.training.env_steps`, Ctrl-C or SIGTERM.

    The signals end the loop after the current train steps, with a checkpoint; while train steps
    are compiled ahead, at once. Raises NonFiniteError and CheckpointError; earlier checkpoints stay
    as they were. `on_evaluated` ends the loop if it returns True, and an error of it does so too.
    """
    mirrored = Mirror(folder, config.training.storage)
    with (
        hold(folder),
        terminal.outlived(folder / terminal.LOG),
        StopRequest(TRAINING_STOPS) as stop,
        mirrored as mirror,
        everything_on_cpu(),
    ):
        outcome = None
        while outcome is None:
            try:
                outcome = _train(config, folder, resume, stop, mirror, on_evaluated, watchers)
            except NonFiniteError as error:
                for watcher in watchers:
                    watcher.diverged()
                config, resume = roll_back(error, config, folder / "checkpoints")
    return outcome._replace(interrupted=bool(stop))  # even while the mirror closes


def _train(
    config: Config,
    folder: Path,
    resume: checkpoint.Save | None,
    stop: StopRequest,
    mirror: Mirror,
    on_evaluated: EvaluationListener | None,
    watchers: Sequence[Watcher],
) -> TrainingOutcome:
    with heartbeat.stage("starting"):
        spec = spec_of(config)
        agent = make_agent(config, spec)
        memory_lines = check_replay_memory(config, spec, agent)
        trainer = Trainer(config, spec, agent)
        evaluate = make_evaluation(config, agent.policy, lambda: bool(stop))
        trainer.begin(resume)
        rollout: EnvironmentRollout
        if config.data.folder:
            rollout = open_recorded(config, trainer, resume)
        else:
            rollout = _rollout_from(config, agent.policy, resume)

    blocks = config.training.blocks_per_call
    trainer.compile_ahead()
    with (
        contextlib.closing(rollout),
        Run(folder, config, resume, mirror, watchers) as run,
    ):
        for line in memory_lines:
            logs.announce(line)
        _learn(trainer, run, {}, stop)  # train steps that were still due when `resume` was written
        weights = trainer.weights()
        if resume is None and config.training.start_from:
            # The policy that it begins with may stay the best.
            evaluation = evaluate(weights.params)
            if evaluation is not None:
                run.evaluated(0, weights, evaluation)
        while not (stop or run.is_at_its_end(trainer.env_steps)):
            if blocks > 1:
                assert isinstance(rollout, Rollout)  # guaranteed by the config
                rollout.prepare(weights)
                metrics, episodes = trainer.drive_and_train(rollout, blocks)
                run.drove(episodes)
                run.trained(blocks, metrics)
            else:
                trajectory, episodes = rollout.collect(weights)
                run.drove(episodes)
                _learn(trainer, run, trainer.insert(trajectory), stop)
            if run.should_log():
                run.log(trainer.env_steps, trainer.train_steps)
            weights = trainer.weights()
            if run.should_evaluate(trainer.env_steps):
                evaluation = evaluate(weights.params)
                if evaluation is None:  # asked to stop
                    break
                run.evaluated(trainer.env_steps, weights, evaluation)
                if _ends_it(on_evaluated, trainer, rollout, run):
                    break
            if run.should_save():
                _save(trainer, rollout, run)
        run.log(trainer.env_steps, trainer.train_steps)
        _save(trainer, rollout, run)
        return TrainingOutcome(run.summary(trainer.env_steps), bool(stop))


def _ends_it(
    on_evaluated: EvaluationListener | None,
    trainer: Trainer,
    rollout: EnvironmentRollout,
    run: Run,
) -> bool:
    """Tells a listener of an evaluation; returns whether the training ends with it."""
    if on_evaluated is None:
        return False
    _save(trainer, rollout, run)
    return bool(on_evaluated(run.figures(trainer.env_steps)))


def _save(trainer: Trainer, rollout: EnvironmentRollout, run: Run) -> None:
    trainer.save(run.checkpoints, run.meta(), rollout.saved())
    run.saved()


def _learn(trainer: Trainer, run: Run, metrics: dict[str, float], stop: StopRequest) -> None:
    """Runs the train steps that are due, until asked to stop."""
    for _ in range(trainer.calls_due()):
        trainer.wait_until_compiled(lambda: bool(stop))
        if stop:
            return
        run.trained(trainer.updates_per_call, trainer.train() | metrics)
        if run.should_log():
            run.log(trainer.env_steps, trainer.train_steps)


def _rollout_from(
    config: Config, policy: Policy, resume: checkpoint.Save | None
) -> EnvironmentRollout:
    """Continues with the cars of `resume`; a checkpoint of a training on Ray holds none."""
    if resume is None:
        return make_rollout(config, policy)
    # Env steps differ between all checkpoints, so no two resumed trainings drive the same races.
    rollout = make_rollout(config, policy, restart_id=resume.env_steps)
    try:
        if "rollout.safetensors" in resume.meta["sha256"]:
            rollout.restore(checkpoint.load_extra(resume, "rollout"))
    except BaseException:
        rollout.close()
        raise
    return rollout
