"""`rlcar chaos`: against a training of its own, or against one that runs already."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.chaos.driver import TrainingProcess
from cluster.chaos.kills import Chaos, Plan, only_training_job
from cluster.chaos.report import make_report
from cluster.chaos.watch import Watch
from cluster.config import ClusterConfig
from cluster.runtime import ray_runtime
from rlcar.errors import UserError
from rlcar.runs.run import require_run
from rlcar.system.interrupt import StopRequest

Say = Callable[[str], None]
_FINISH_LIMIT_S = 3600.0


def against_own_training(
    plan: Plan,
    cluster: ClusterConfig,
    folder: Path,
    arguments: Sequence[str],
    *,
    window_s: float,
    say: Say,
) -> dict[str, Any]:
    """Starts `rlcar train <arguments>` and kills parts of it, its driver too; returns the report.

    With `plan.until_env_steps` the training goes on to its end, else it is stopped when the plan
    is fulfilled. Raises UserError when it cannot be started, or stands still for good.
    """
    watch = Watch(folder, window_s)
    with ray_runtime(cluster), StopRequest() as stop:
        address = ray.get_runtime_context().gcs_address
        training = TrainingProcess(folder, [*arguments, "--address", address])
        say(f"the training writes {folder} and says what it does in {training.log}")
        chaos = Chaos(plan, watch, training, None, say)
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
        watch.look(time.monotonic())
    return make_report(
        chaos.kills,
        completed=completed,
        failure=failure,
        seconds=seconds,
        env_steps=watch.env_steps,
        usual_rate=watch.usual_rate(),
        driver_restarts=training.restarts,
    )


def against_running_training(
    plan: Plan,
    cluster: ClusterConfig,
    run: Path,
    job: str | None,
    *,
    window_s: float,
    say: Say,
) -> dict[str, Any]:
    """Kills parts of a training that somebody else started, but not its driver."""
    watch = Watch(require_run(run), window_s)
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ray_runtime(cluster), StopRequest() as stop:
        chaos = Chaos(plan, watch, None, job or only_training_job(), say)
        failure = None
        try:
            chaos.run(lambda: stop)
        except UserError as error:
            failure = str(error)
        seconds = time.monotonic() - chaos.started_s
    if not chaos.kills:
        raise UserError(failure or "nothing was killed: the plan was over before the usual rate")
    return make_report(
        chaos.kills,
        completed=failure is None and chaos.kills[-1].recovery_s is not None,
        failure=failure,
        seconds=seconds,
        env_steps=watch.env_steps,
        usual_rate=watch.usual_rate(),
        driver_restarts=0,
    )
