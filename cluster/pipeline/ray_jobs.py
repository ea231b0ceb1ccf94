"""Runs the stages that compute as Ray jobs on a cluster; the others stay in this process."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.jobs import submit as job_tools
from cluster.jobs.dashboard import DashboardClient
from cluster.pipeline.context import Context, Stage
from cluster.pipeline.run import Execute, run_here
from cluster.pipeline.settings import PipelineSettings
from rlcar.errors import UserError

# Those that only copy, publish or wait need the recordings and the registry, and no computer.
ON_CLUSTER = ("train", "simulation gate", "off-policy gate")


def on_cluster(
    client: DashboardClient, words: Sequence[str], show: Callable[[str], None], python: str
) -> Execute:
    """Returns an executor for `rlcar pipeline` with these words, whose jobs' output is shown.

    A job that an earlier call has submitted for the same run, and that still runs, is followed. The
    job writes the entry of its stage itself, so its folders must be those of this machine.
    """

    def execute(context: Context, stage: Stage) -> None:
        if stage.name not in ON_CLUSTER:
            run_here(context, stage)
            return
        arguments = ["pipeline", *words, "--stage", stage.name, "--run", str(context.run.number)]
        job_id = _running(client, arguments)
        if job_id is None:
            entrypoint = job_tools.entrypoint_of(arguments, python)
            job_id = job_tools.submit(client, arguments, entrypoint, Path.cwd()).job_id
        context.say(f"{context.name}: {stage.name} is the job {job_id}")
        job = job_tools.follow(client, job_id, show)
        if stage.name in {entry.stage for entry in context.run.entries()}:
            return
        why = job_tools.reason(job) or f"it ended with exit code {job_tools.exit_code(job)}"
        raise UserError(
            f"the job {job_id} has not finished the stage {stage.name}: {why}; see rlcar jobs logs "
            f"{job_id}, and check that the cluster can write {context.run.folder}"
        )

    return execute


def require_shared(settings: PipelineSettings) -> None:
    """Raises UserError for folders that a job on another machine cannot mean."""
    gate, fine_tune = settings.gates.off_policy_evaluation, settings.train.fine_tune
    places = {"folder": settings.folder, "registry": settings.registry}
    if gate is not None and gate.data:
        places["gates.offPolicyEvaluation.data"] = gate.data
    if fine_tune is not None:
        places["train.fineTune.runs"] = fine_tune.runs
    for name, place in places.items():
        if "://" not in place and not Path(place).is_absolute():
            raise UserError(
                f"{name} {place} is relative, and the jobs of a cluster run elsewhere: name an "
                "absolute folder that every node and this machine share"
            )


def _running(client: DashboardClient, arguments: Sequence[str]) -> str | None:
    """Returns the job of the same command that has not ended, if there is one."""
    command = shlex.join(arguments)
    for job in job_tools.jobs(client):
        is_same = (job.metadata or {}).get("rlcar") == command
        if is_same and not job.status.is_terminal():
            return job.submission_id
    return None
