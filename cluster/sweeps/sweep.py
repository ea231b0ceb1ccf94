"""Runs many trainings under Ray Tune, in one folder from which the sweep can be resumed.

sweeps/<name>/sweep.yaml      the settings of the sweep
              history.jsonl   one line for each report of a trial
              trials/<number> the run of each trial
              tune/           Ray Tune's own state, and the trials' checkpoints
              results.csv     and .json, index.html, learning_curves.html,
                              parallel_coordinates.html, best.yaml
"""

import contextlib
import functools
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from ray import tune
from ray.tune import CheckpointConfig, ResumeConfig
from ray.tune.experiment import Trial

from cluster.runtime import ray_runtime
from cluster.sweeps import tune_parts
from cluster.sweeps.config import SweepConfig
from cluster.sweeps.file import parse_sweep
from cluster.sweeps.history import History, TrialResult, TrialState, ranked
from cluster.sweeps.old_modules import old_module_names
from cluster.sweeps.progress import SchedulerKeeper, SweepProgress, failure_of
from cluster.sweeps.results import write_results
from cluster.sweeps.trial import run_trial
from rlcar.errors import UserError
from rlcar.runs.folders import require_plain_name
from rlcar.settings.files import read_yaml
from rlcar.system import terminal
from rlcar.system.durable import explaining_write_errors, replace_text
from rlcar.system.interrupt import StopRequest
from rlcar.system.lease import hold, holder


class SweepOutcome(NamedTuple):
    """The results of a sweep, the best trial first."""

    results: list[TrialResult]
    interrupted: bool


def new_sweep_folder(root: Path, name: str, sweep: SweepConfig) -> Path:
    """Makes `<root>/<name>` and writes sweep.yaml; raises UserError if a sweep is there already."""
    require_plain_name(name)
    folder = root / name
    why = holder(folder)
    if why or (folder / "sweep.yaml").exists():
        raise UserError(
            f"{folder} already holds a sweep{f', and {why}' if why else ''}: continue it with "
            "--resume, or choose another --name"
        )
    with explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(sweep.model_dump(exclude_unset=True), sort_keys=False)
        replace_text(folder / "sweep.yaml", text)
    return folder


def stored_sweep(folder: Path) -> SweepConfig:
    """Reads the sweep of a folder; raises UserError if there is none."""
    if not (folder / "sweep.yaml").exists():
        raise UserError(f"{folder} holds no sweep to continue: start it without --resume")
    return parse_sweep(read_yaml(folder / "sweep.yaml"))


def run_sweep(sweep: SweepConfig, folder: Path, address: str | None = None) -> SweepOutcome:
    """Runs the unfinished part of a sweep, and writes its results, even if it is stopped.

    Raises UserError for what the user can correct; earlier reports stay.
    """
    folder = folder.resolve()  # trials have working directories of their own
    largest = tune_parts.largest_trial(sweep)
    runtime = tune_parts.runtime_config(sweep, largest).model_copy(update={"address": address})
    resume = _resume(folder / "tune")
    trainable = tune.with_parameters(run_trial, sweep=sweep, folder=folder)
    with (
        hold(folder),
        terminal.outlived(folder / terminal.LOG),
        ray_runtime(runtime),
        StopRequest() as stop,
        _quiet_tune(),
        old_module_names() if resume else contextlib.nullcontext(),
    ):
        history = History(folder)
        tune_parts.warn_if_crowded(sweep, largest)
        scheduler = tune_parts.scheduler(sweep)
        progress = SweepProgress(sweep, history, stop)
        keeper = SchedulerKeeper(scheduler, folder / "tune" / "scheduler.pkl")
        # Not `tune.Tuner`, which would pickle the callbacks; those hold the terminal.
        analysis = tune.run(
            tune.with_resources(trainable, functools.partial(tune_parts.resources, sweep)),
            name="tune",
            storage_path=str(folder),
            config=tune_parts.search_space(sweep),
            num_samples=1 if sweep.search == "grid" else sweep.trials,
            scheduler=scheduler,
            search_alg=tune_parts.searcher(sweep, folder),
            checkpoint_config=CheckpointConfig(num_to_keep=tune_parts.checkpoints_kept(sweep)),
            max_failures=sweep.budget.retries,
            raise_on_failed_trial=False,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            callbacks=[progress, keeper],
            resume_config=resume,
            verbose=0,
        )
        states = {
            str(trial): TrialState(
                progress.statuses.get(str(trial), trial.status),
                trial.run_metadata.num_failures,
                failure_of(trial),
                sweep.sample_of(trial.config),
            )
            for trial in analysis.trials
        }
        results = ranked(sweep, history, states)
        write_results(sweep, folder, results)
        return SweepOutcome(results, bool(stop))


# The stored state of a sweep refers to this function by its name: see `old_modules`.
def _trial_name(trial: Trial) -> str:
    """Returns the number of the trial with three digits; Tune's tag of a trial begins with it."""
    return f"{int(re.split('[^0-9]', trial.experiment_tag, maxsplit=1)[0]):03d}"


def _resume(state: Path) -> ResumeConfig | None:
    """Resumes unfinished and failed trials, if Tune had time to write its state."""
    if not any(state.glob("experiment_state-*.json")):
        return None
    return ResumeConfig(errored=ResumeConfig.ResumeType.RESUME)  # type: ignore[arg-type]  # its own enum


@contextlib.contextmanager
def _quiet_tune() -> Iterator[None]:
    """Silences Tune, keeps it from handling Ctrl-C, and restores the handler of SIGUSR1."""
    settings = {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # history.jsonl and the runs have all of it
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train")]
    levels = [tune_logger.level for tune_logger in loggers]
    handler = signal.getsignal(signal.SIGUSR1)
    os.environ.update(settings)
    for tune_logger in loggers:
        tune_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, handler)
        for tune_logger, level in zip(loggers, levels, strict=True):
            tune_logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
