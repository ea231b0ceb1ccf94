"""Runs a series of kills: against a new training, or against one that is running already."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.chaos.kills import KillCampaign, KillPlan, only_training_job
from cluster.chaos.report import make_report
from cluster.chaos.training_process import TrainingProcess
from cluster.chaos.watch import RunWatch
from cluster.config import ClusterConfig
from cluster.runtime import ray_runtime
from rlcar.errors import UserError
from rlcar.runs.run import require_run
from rlcar.system.interrupt import StopRequest

Say = Callable[[str], None]
_FINISH_LIMIT_S = 3600.0


def against_own_training(
    plan: KillPlan,
    cluster: ClusterConfig,
    folder: Path,
    arguments: Sequence[str],
    *,
    window_s: float,
    say: Say,
) -> dict[str, Any]:
    """Starts `rlcar train <arguments>`, kills its parts and its driver; returns the report.

    With `plan.until_env_steps`, the training continues to its end. Otherwise it is stopped when the
    plan is fulfilled. Raises UserError if it cannot be started or makes no progress.
    """
    watch = RunWatch(folder, window_s)
    with ray_runtime(cluster), StopRequest() as stop:
        address = ray.get_runtime_context().gcs_address
        training = TrainingProcess(folder, [*arguments, "--address", address])
        say(f"the training writes to {folder}; its output is in {training.log}")
        chaos = KillCampaign(plan, watch, training, None, say)
        failure = None
        completed = False
        try:
            chaos.run(lambda: stop)
            if plan.until_env_steps is not None and not stop:
                completed = training.finish(_FINISH_LIMIT_S)
            else:
                completed = training.stop() and not stop
        except UserError as error:
            if not chaos.kills:
                raise
            failure = str(error)
        finally:
            with contextlib.suppress(ProcessLookupError):
                training.stop()
        seconds = time.monotonic() - chaos.started_s
        watch.update(time.monotonic())
    return make_report(
        chaos.kills,
        completed=completed,
        failure=failure,
        seconds=seconds,
        env_steps=watch.env_steps,
        undisturbed_rate=watch.undisturbed_rate(),
        driver_restarts=training.restarts,
    )


def against_running_training(
    plan: KillPlan,
    cluster: ClusterConfig,
    run: Path,
    job: str | None,
    *,
    window_s: float,
    say: Say,
) -> dict[str, Any]:
    """Kills parts of a training that was started elsewhere, but not its driver."""
    watch = RunWatch(require_run(run), window_s)
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ray_runtime(cluster), StopRequest() as stop:
        chaos = KillCampaign(plan, watch, None, job or only_training_job(), say)
        failure = None
        try:
            chaos.run(lambda: stop)
        except UserError as error:
            failure = str(error)
        seconds = time.monotonic() - chaos.started_s
    if not chaos.kills:
        raise UserError(
            failure
            or "nothing was killed: the time was over before the undisturbed rate was known; "
            "allow more with --minutes"
        )
    return make_report(
        chaos.kills,
        completed=failure is None and chaos.kills[-1].recovery_s is not None,
        failure=failure,
        seconds=seconds,
        env_steps=watch.env_steps,
        undisturbed_rate=watch.undisturbed_rate(),
        driver_restarts=0,
    )
