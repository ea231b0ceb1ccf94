"""Runs a curriculum: does what the state machine asks for, and records what happened.

    runs/<name>/           the curriculum: journal, state, report and picture
    runs/<name>-s2-a1/     the first attempt of the second stage, an ordinary run

Every action can be repeated. A process that is killed before an event is recorded repeats the
action: a training goes on from its newest checkpoint, and an evaluation drives the same episodes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlcar.agents import Agent, make_agent
from rlcar.config import Config, load_config
from rlcar.errors import CheckpointError, UserError
from rlcar.evaluation.environment import make_fresh_evaluation, spec_of
from rlcar.runs import stage_note
from rlcar.runs.completion import is_saved_at_its_end
from rlcar.runs.run import EvaluationListener
from rlcar.runs.stage_note import StageNote
from rlcar.storage import checkpoint
from rlcar.system import heartbeat, logs
from rlcar.system.durable import explaining_write_errors
from rlcar.system.interrupt import StopRequest
from rlcar.training.curriculum.boundary import check_after, check_before, policy_of
from rlcar.training.curriculum.checks import changes_between
from rlcar.training.curriculum.machine import (
    ENDED,
    Entered,
    Evaluated,
    Phase,
    Rechecked,
    Regressed,
    Trained,
    may_end_early,
)
from rlcar.training.curriculum.record import Record, run_folder
from rlcar.training.curriculum.report import write_report
from rlcar.training.curriculum.settings import Stage
from rlcar.training.curriculum.thresholds import (
    LOOK_LEVEL,
    Verdict,
    fresh_seeds,
    judge,
    recheck,
    score_of,
)
from rlcar.training.loop import TrainingOutcome
from rlcar.types import Outcomes

_CONFIRMING, _RECHECKING = 0, 1  # purposes of fresh episodes
_STOPS = "stopping after the current evaluation"


class TrainRun(Protocol):
    """The training loop in one process or on Ray."""

    def __call__(
        self,
        config: Config,
        folder: Path,
        resume: checkpoint.Save | None,
        on_evaluated: EvaluationListener,
    ) -> TrainingOutcome:
        """Trains one attempt in its folder; `on_evaluated` may end it early."""


class Look:
    """Receives the evaluations of a training, and ends it when one looks good enough."""

    def __init__(self, stage: Stage, may_end: bool):
        self._stage, self._may_end = stage, may_end
        self.latest: Verdict | None = None

    def __call__(self, figures: dict[str, float]) -> bool:
        """Returns whether the training should stop, so that its policy is measured."""
        if "outcomes/episodes" not in figures:
            raise UserError(
                f"stage {self._stage.name!r} cannot be judged, because its environment reports no "
                "outcomes of its evaluations"
            )
        successes = figures.get("outcomes/successes")
        outcomes = Outcomes(
            int(figures["outcomes/episodes"]),
            None if successes is None else int(successes),
            figures["outcomes/mean_reward"],
        )
        self.latest = judge(self._stage, outcomes, LOOK_LEVEL)
        has_begun = figures["env_steps"] > 0
        has_driven = figures["episode/count"] >= self._stage.min_episodes
        return self._may_end and has_begun and has_driven and self.latest.passed


class CurriculumRun:
    """Holds the record of a curriculum and takes one step of it after another."""

    def __init__(self, record: Record, train: TrainRun):
        self.record, self._train_run = record, train
        self._curriculum = record.curriculum
        self._agents: dict[str, Agent] = {}
        self._actions: dict[Phase, Callable[[StopRequest], bool]] = {
            Phase.ENTER: self._enter,
            Phase.TRAIN: self._train,
            Phase.EVALUATE: self._evaluate,
            Phase.ADVANCE: self._advance,
            Phase.REGRESS: self._regress,
        }

    @property
    def folder(self) -> Path:
        """The folder of the curriculum."""
        return self.record.folder

    def run(self) -> bool:
        """Goes on until the curriculum has ended; returns False if it was asked to stop before."""
        with StopRequest(_STOPS) as stop:
            while self.record.state.phase not in ENDED:
                if stop or not self.step(stop):
                    return False
            write_report(self.record)
        return True

    def step(self, stop: StopRequest) -> bool:
        """Does what the present phase asks for; returns False if it was asked to stop."""
        return self._actions[self.record.state.phase](stop)

    def run_folder(self, run: tuple[int, int]) -> Path:
        """Returns the folder of a run, given by its stage (index) and number."""
        return run_folder(self.folder, run)

    def _enter(self, stop: StopRequest) -> bool:
        del stop
        state = self.record.state
        stage = self._curriculum.stages[state.stage]
        run = state.stage, state.runs[state.stage] + 1
        self._require_unused(self.run_folder(run))
        config = self._curriculum.config(*run)
        details: dict[str, Any] = {"changes": [], "statistics": {}}
        if state.source is not None:
            before, save = self._newest(state.source)
            details |= {"source": self.run_folder(state.source).name, "checkpoint": save.path.name}
            details["changes"] = changes_between(before, config)
            ended = self.record.details_of_run(state.source, Trained) or {}
            details |= check_before(self._agent(config), config, save, stage.name, ended)
        for line in details["changes"]:
            logs.announce(
                f"stage {stage.name} changes a setting of the learner or of the rewards, and "
                f"perhaps the scale of rewards: {line}"
            )
        logs.announce(
            f"stage {state.stage + 1} of {len(self._curriculum.stages)} ({stage.name}), attempt "
            f"{state.attempt} of {stage.attempts}"
        )
        self.record.write(Entered(), details)
        return True

    def _train(self, stop: StopRequest) -> bool:
        del stop  # the training loop handles signals itself
        state = self.record.state
        stage = self._curriculum.stages[state.stage]
        folder = self.run_folder(state.run)
        config = self._curriculum.config(*state.run)
        if state.source is not None:
            _, source = self._newest(state.source)
            start = {"start_from": str(source.path.resolve())}
            config = config.model_copy(
                update={"training": config.training.model_copy(update=start)}
            )
        with explaining_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stage_note.write(folder, self._note())
        save = checkpoint.latest_sound(folder / "checkpoints")
        if save is not None:
            config = load_config(checkpoint.config_path(save))
        look = Look(stage, may_end_early(state))
        if save is None or not is_saved_at_its_end(config.training, save):
            outcome = self._train_run(config, folder, save, look)
            if outcome.interrupted:
                return False
        _, newest = self._newest(state.run)
        began = self.record.details_of_run(state.run, Entered) or {}
        statistics = check_after(self._agent(config), newest, began.get("statistics", {}))
        details = {
            "run": folder.name,
            "env_steps": newest.env_steps,
            "train_seconds": newest.meta["train_seconds"],
            "statistics": statistics,
            "look": None if look.latest is None else look.latest.tree(),
        }
        self.record.write(Trained(is_saved_at_its_end(config.training, newest)), details)
        return True

    def _evaluate(self, stop: StopRequest) -> bool:
        state = self.record.state
        stage = self._curriculum.stages[state.stage]
        config, save = self._newest(state.run)
        number = state.confirmations + 1
        purpose = (_CONFIRMING, *state.run, save.env_steps)
        outcomes = self._fresh_outcomes(config, save, purpose, stop)
        if outcomes is None:
            return False
        verdict = judge(stage, outcomes, self._curriculum.level(number))
        result = "passed" if verdict.passed else "not passed"
        logs.announce(f"stage {stage.name} {result}: {verdict.sentence()}")
        details = {
            **verdict.tree(),
            "run": self.run_folder(state.run).name,
            "checkpoint": save.path.name,
            "env_steps": save.env_steps,
        }
        self.record.write(Evaluated(verdict.passed, score_of(stage, verdict)), details)
        write_report(self.record)
        return True

    def _advance(self, stop: StopRequest) -> bool:
        """Evaluates the stages before the present one again, with the policy that has passed it."""
        state = self.record.state
        _, save = self._newest(state.run)
        folder = self.run_folder(state.run)
        with explaining_write_errors(folder):
            stage_note.write(folder, self._note()._replace(is_passed=True))
        rechecks = []
        for earlier in range(state.stage):
            config = self._curriculum.config(earlier, 1)
            purpose = (_RECHECKING, *state.run, earlier)
            outcomes = self._fresh_outcomes(config, save, purpose, stop)
            if outcomes is None:
                return False
            found = recheck(
                self._curriculum.stages[earlier], outcomes, self._passing_verdict(earlier)
            )
            rechecks.append(found._asdict())
            if found.is_forgotten:
                logs.announce(
                    f"forgotten: stage {found.stage} was passed and is now below its thresholds "
                    f"(success {_percent(found.success_rate)}, then "
                    f"{_percent(found.success_rate_before)}; mean reward {found.mean_reward:.4g}, "
                    f"then {found.mean_reward_before:.4g})"
                )
        if rechecks and not any(found["is_forgotten"] for found in rechecks):
            logs.announce(f"the {len(rechecks)} earlier stages are not forgotten")
        self.record.write(Rechecked(), {"earlier": rechecks})
        write_report(self.record)
        return True

    def _regress(self, stop: StopRequest) -> bool:
        del stop
        state = self.record.state
        names = [stage.name for stage in self._curriculum.stages]
        logs.announce(
            f"stage {names[state.stage]} was not passed in its last attempt: back to stage "
            f"{names[state.stage - 1]} (regression {state.regressions} of at most "
            f"{self._curriculum.max_regressions})"
        )
        self.record.write(Regressed(), {"to": names[state.stage - 1]})
        return True

    def _fresh_outcomes(
        self, config: Config, save: checkpoint.Save, purpose: Sequence[int], stop: StopRequest
    ) -> Outcomes | None:
        """Drives fresh episodes with the policy of a checkpoint; None if asked to stop."""
        agent = self._agent(config)
        seeds = fresh_seeds(self._curriculum, *purpose)
        evaluate = make_fresh_evaluation(config, agent.policy, seeds, lambda: bool(stop))
        with heartbeat.stage("evaluating"):
            evaluation = evaluate(policy_of(agent, save))
        if evaluation is None:
            return None
        if evaluation.outcomes is None:
            raise UserError(
                f"the environment of {config.world_label} reports no outcomes, so no stage of it "
                "can be judged"
            )
        return evaluation.outcomes

    def _passing_verdict(self, stage: int) -> dict[str, Any]:
        """Returns the figures of the newest evaluation that passed a stage."""
        return next(
            entry.details
            for entry in reversed(self.record.entries)
            if isinstance(entry.event, Evaluated)
            and entry.event.passed
            and entry.before.stage == stage
        )

    def _require_unused(self, folder: Path) -> None:
        """Raises UserError if the folder of a run that has not begun exists already."""
        if folder.exists():
            raise UserError(
                f"{folder} exists already and is not of this curriculum, perhaps of an earlier one "
                f"called {self.folder.name}: move or delete it, or begin again under another --name"
            )

    def _newest(self, run: tuple[int, int]) -> tuple[Config, checkpoint.Save]:
        """Returns the settings and the newest sound checkpoint of a run."""
        folder = self.run_folder(run)
        save = checkpoint.latest_sound(folder / "checkpoints")
        if save is None:
            raise CheckpointError(
                f"{folder} holds no sound checkpoint, and the curriculum {self.folder.name} needs "
                "it to go on: restore the folder from a backup"
            )
        return load_config(checkpoint.config_path(save)), save

    def _note(self) -> StageNote:
        state, stages = self.record.state, self._curriculum.stages
        stage = stages[state.stage]
        return StageNote(
            self.folder.name,
            state.stage + 1,
            len(stages),
            stage.name,
            state.attempt,
            stage.attempts,
            state.regressions,
            stage.success_rate,
            stage.mean_reward,
        )

    def _agent(self, config: Config) -> Agent:
        """Returns one agent for all stages, whose compiled functions are therefore shared."""
        key = config.algorithm_settings.model_dump_json()
        if key not in self._agents:
            self._agents[key] = make_agent(config, spec_of(config))
        return self._agents[key]


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.0f} %"
