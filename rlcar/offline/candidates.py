"""Trains the candidates of a selection, and measures them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcar.agents import make_agent
from rlcar.config import Config, load_config
from rlcar.datasets import Dataset
from rlcar.errors import NonFiniteError, UserError
from rlcar.evaluation.environment import make_evaluation, spec_of
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.laps import Laps, charged_steps, drive
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.policies import NamedPolicy
from rlcar.evaluation.off_policy.run import estimate, shown_progress, write_report
from rlcar.evaluation.run_report import load_policy
from rlcar.offline.plan import FIRST
from rlcar.offline.selection import Measure
from rlcar.runs.run import writing
from rlcar.storage import checkpoint
from rlcar.system.provenance import provenance
from rlcar.system.regular_file import read_regular
from rlcar.training.loop import train

CHOICE_SET, REPORT_SET = "validation", "test"
_FAILURE = "failed.json"  # in the run's folder: why the training diverged
Say = Callable[[str], None]


class Trained(NamedTuple):
    """A candidate after its training."""

    folder: Path
    config: Config
    policy: NamedPolicy


class StoppedError(Exception):
    """Ctrl-C or SIGTERM has ended a training."""


def run_folder(out: Path, name: str) -> Path:
    """Returns the folder of a candidate's run; versions are called after it."""
    return out / "runs" / f"{out.resolve().name}-{name}"


def train_candidates(
    out: Path, configs: Mapping[str, Config], say: Say
) -> tuple[dict[str, Trained], dict[str, str]]:
    """Trains what is not trained yet; raises StoppedError after Ctrl-C, with a checkpoint.

    Returns the trained candidates, and for those that diverged the reason. What diverged in an
    earlier call is not trained again. Raises NonFiniteError if the baseline or every candidate
    diverged.
    """
    trained: dict[str, Trained] = {}
    failed: dict[str, str] = {}
    for name, config in configs.items():
        folder = run_folder(out, name)
        try:
            _train(name, config, folder, say)
        except NonFiniteError as error:
            if name == FIRST or len(failed) == len(configs) - 1:
                raise
            say(f"{name} failed: {error}")
            failed[name] = str(error)
            continue
        trained[name] = _load(name, folder, config)
    return trained, failed


def _train(name: str, config: Config, folder: Path, say: Say) -> None:
    """Trains a candidate to its end; raises NonFiniteError if it diverges, or did so before."""
    earlier = _failure(folder)
    if earlier is not None:
        raise NonFiniteError(f"{earlier} (in an earlier try; to train it again, remove {folder})")
    save = checkpoint.latest_sound(folder / "checkpoints")
    if save is not None and save.env_steps >= config.training.env_steps:
        return
    if save is not None:
        # A return to a checkpoint after a NaN has lowered the learning rate; the data may have
        # moved since.
        kept = load_config(checkpoint.config_path(save))
        config = kept.model_copy(update={"data": config.data})
    say(f"training {name}: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        outcome = train(config, folder, save)
    except NonFiniteError as error:
        with writing(folder):
            write_json(folder / _FAILURE, {"reason": str(error), **provenance(config.seed)})
        raise
    if outcome.interrupted:
        raise StoppedError


def _failure(folder: Path) -> str | None:
    """Returns why a candidate diverged in an earlier call."""
    try:
        return str(json.loads(read_regular(folder / _FAILURE))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or unreadable: try again


def _load(name: str, folder: Path, config: Config) -> Trained:
    agent = make_agent(config, spec_of(config))
    _, params = load_policy(folder, folder, agent, config.seed)
    return Trained(folder, config, NamedPolicy(name, agent.policy, params))


def measure(trained: Mapping[str, Trained]) -> tuple[str, dict[str, Measure]]:
    """Drives every candidate where its environment can be made.

    Returns what was measured, and the costs: of each validation track, or of the episodes of
    another environment. The costs of no candidate are known if the environment is not.
    """
    config = next(iter(trained.values())).config
    if config.is_race:
        costs = {
            name: Measure(charged_steps(_laps(candidate, CHOICE_SET)))
            for name, candidate in trained.items()
        }
        return "steps of a lap on the validation tracks", costs
    if config.environment.id:
        return "negative reward of an episode", {
            name: Measure(np.array([_episode_cost(candidate)]))
            for name, candidate in trained.items()
        }
    return "estimates from the data", {}


def lap_figures(candidate: Trained) -> dict[str, Any]:
    """Returns the figures of a candidate on the test tracks, which no choice has seen."""
    laps = _laps(candidate, REPORT_SET)
    is_lap = laps.lap_time_steps > 0
    return {
        "lap_rate": float(is_lap.mean()),
        "lap_time_steps": float(laps.lap_time_steps[is_lap].mean()) if is_lap.any() else None,
        "charged_lap_steps": float(charged_steps(laps).mean()),
        "reward": float(laps.reward.mean()),
    }


def estimate_candidates(
    dataset: Dataset, trained: Mapping[str, Trained], out: Path, settings: FittedQSettings
) -> dict[str, Any] | None:
    """Estimates the candidates from the data; None for images, which have no estimate.

    The first one is the baseline of the verdicts, unless it is the only one.
    """
    if dataset.spec.image_shape is not None:
        return None
    first, *others = [candidate.policy for candidate in trained.values()]
    baseline = first if others else None
    with shown_progress() as on_policy:
        report = estimate(
            dataset, others or [first], settings, baseline=baseline, on_policy=on_policy
        )
    write_report(out, report)
    return report


def estimated_results(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the estimates of all candidates by their names; none without a report."""
    if report is None:
        return {}
    baseline = report["baseline"]
    return {**({} if baseline is None else {baseline["name"]: baseline}), **report["policies"]}


def _laps(candidate: Trained, track_set: str) -> Laps:
    named = candidate.policy
    return drive(named.policy, named.params, candidate.config.race, track_set)


def _episode_cost(candidate: Trained) -> float:
    evaluation = make_evaluation(candidate.config, candidate.policy.policy)(candidate.policy.params)
    if evaluation is None:
        raise UserError(f"the evaluation of {candidate.folder} was stopped: repeat the command")
    assert evaluation.cost is not None  # only recorded data without an environment has none
    return evaluation.cost
