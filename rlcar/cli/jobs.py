"""`rlcar submit` and `rlcar jobs`: runs a command of rlcar on a Ray cluster or Kubernetes."""

import datetime
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli import kubernetes as k8s
from rlcar.cli.log_view import LogView
from rlcar.cli.shared import (
    AsJson,
    DashboardAddress,
    PythonOnHead,
    cluster_imports,
    console,
    number,
)
from rlcar.errors import UserError, command
from rlcar.settings.explain import nearest
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from cluster.jobs import dashboard
    from cluster.jobs.submit import JobDetails

JobId = Annotated[
    str, typer.Argument(help="Name of the job, as rlcar submit or rlcar jobs list prints it.")
]

# Verbs that come to an end without a person at the terminal.
_VERBS = ("train", "tune", "chaos", "evaluate", "dream", "profile")

jobs = typer.Typer(no_args_is_help=True, help="Lists, follows and stops submitted jobs.")


def submit(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="-- VERB …", help="Command of rlcar to run, e.g. -- train --mode test."
        ),
    ],
    address: DashboardAddress = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Returns at once, without following the job's log.")
    ] = False,
    working_dir: Annotated[
        Path, typer.Option(help="Checkout of rlcar to run in place of the installed program.")
    ] = Path(),
    python: PythonOnHead = "python",
    driver_cpus: Annotated[
        float, number(0, 65_536, help="CPU cores to reserve for the command itself.")
    ] = 0.0,
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
    name: k8s.JobName = None,
    image: k8s.Image = None,
    gpus: k8s.Gpus = None,
    workers: k8s.Workers = None,
    queue: k8s.Queue = None,
    runs_claim: k8s.RunsClaim = None,
    models_claim: k8s.ModelsClaim = None,
    priority_class: k8s.PriorityClass = None,
    retries: k8s.Retries = None,
    dry_run: k8s.DryRun = None,
    apply: k8s.Apply = False,
    force_conflicts: k8s.ForceConflicts = False,
    skip_checks: k8s.SkipChecks = False,
    reconnect_s: k8s.ReconnectS = k8s.RECONNECT_S,
) -> None:
    """Runs a command of rlcar as a job on a Ray cluster and follows its log; Ctrl-C detaches."""
    _check(arguments[0], arguments[1:])
    target = k8s.target_of(namespace, context, kubeconfig)
    options = k8s.SubmitOptions(
        *(name, image, gpus, workers, queue, runs_claim, models_claim, priority_class),
        *(retries, dry_run, apply, force_conflicts, skip_checks),
    )
    if kubernetes:
        _refuse_ray_options(address, python, driver_cpus, working_dir)
        k8s.submit(target, arguments, options, detach=detach, reconnect_s=reconnect_s)
        return
    k8s.refuse_without_kubernetes(options.given(), target)
    _submit_to_ray(arguments, address, detach, working_dir, python, driver_cpus)


def _submit_to_ray(
    arguments: list[str],
    address: str | None,
    detach: bool,
    working_dir: Path,
    python: str,
    driver_cpus: float,
) -> None:
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    client = _connect(address)
    entrypoint = job_tools.entrypoint_of(arguments, python)
    if kept := job_tools.default_folder(arguments):
        console.print(
            f"no folder named: the command writes into {kept} on the head node. A cluster of "
            "several nodes needs a folder that all of them share.",
            highlight=False,
        )
    job = job_tools.submit(client, arguments, entrypoint, working_dir.resolve(), driver_cpus)
    package = job.package
    console.print(
        f"submitted: {job.job_id} ({package.files} files of {package.source}, "
        f"{package.size_bytes / 2**20:.1f} MiB)",
        markup=False,
        highlight=False,
    )
    if detach:
        console.print(_how_to_come_back(job.job_id, address), markup=False, highlight=False)
    else:
        _follow(client, job.job_id, address)


@jobs.command("list")
def list_jobs(
    address: DashboardAddress = None,
    as_json: AsJson = False,
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
    everywhere: k8s.Everywhere = False,
) -> None:
    """Lists the jobs of a cluster, oldest first."""
    target = k8s.target_of(namespace, context, kubeconfig)
    if kubernetes:
        _refuse_ray_options(address)
        k8s.list_jobs(target, everywhere=everywhere, as_json=as_json)
        return
    k8s.refuse_without_kubernetes(["--all-namespaces"] * everywhere, target)
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    rows = [_row(job) for job in job_tools.jobs(_connect(address))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_jobs(rows)


def _print_jobs(rows: list[dict[str, Any]]) -> None:
    table = make_table("job", "state", "began", "took", "command")
    for row in rows:
        began = datetime.datetime.fromisoformat(row["started"]).astimezone()
        seconds = datetime.timedelta(seconds=round(row["seconds"]))
        table.add_row(
            row["job"],
            row["state"],
            f"{began:%Y-%m-%d %H:%M}",
            str(seconds),
            escape(row["command"]),
        )
    make_console().print(table if rows else "no jobs yet")


@jobs.command("logs")
def show_logs(
    job: JobId,
    address: DashboardAddress = None,
    follow: Annotated[
        bool, typer.Option(help="Follows the log until the job ends, or prints it once.")
    ] = True,
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
    reconnect_s: k8s.ReconnectS = k8s.RECONNECT_S,
) -> None:
    """Shows the log of a job and follows it; Ctrl-C does not stop the job."""
    target = k8s.target_of(namespace, context, kubeconfig)
    if kubernetes:
        _refuse_ray_options(address)
        k8s.show_logs(target, job, is_followed=follow, reconnect_s=reconnect_s)
        return
    k8s.refuse_without_kubernetes([], target)
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    client = _connect(address)
    job_tools.find_job(client, job)
    if follow:
        _follow(client, job, address)
    else:
        typer.echo(job_tools.logs(client, job), nl=False)


@jobs.command("stop")
def stop_job(
    job: JobId,
    address: DashboardAddress = None,
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
) -> None:
    """Ends a job; a training saves a checkpoint first."""
    target = k8s.target_of(namespace, context, kubeconfig)
    if kubernetes:
        _refuse_ray_options(address)
        k8s.stop(target, job)
        return
    k8s.refuse_without_kubernetes([], target)
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    ended = job_tools.stop(_connect(address), job)
    console.print(f"{job}: {ended.status.lower()}", highlight=False)


@jobs.command("scale")
def scale_job(
    job: JobId,
    workers: Annotated[int, number(0, 10_000, help="Number of worker pods that run simulators.")],
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
) -> None:
    """Changes the number of worker pods of a job on Kubernetes."""
    if not kubernetes:
        raise UserError("only a job on Kubernetes has worker pods to scale: add --kubernetes")
    k8s.scale(k8s.target_of(namespace, context, kubeconfig), job, workers)


@jobs.command("delete")
def delete_job(
    job: JobId,
    kubernetes: k8s.Kubernetes = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
) -> None:
    """Deletes a job on Kubernetes that has ended, with its pods and their logs."""
    if not kubernetes:
        raise UserError("Ray keeps the list of its jobs itself: add --kubernetes")
    k8s.delete(k8s.target_of(namespace, context, kubeconfig), job)


def _refuse_ray_options(
    address: str | None,
    python: str = "python",
    driver_cpus: float = 0.0,
    working_dir: Path | None = None,
) -> None:
    """Raises UserError for options that only concern a Ray cluster's dashboard."""
    given = {
        "--address": address is not None,
        "--python": python != "python",
        "--driver-cpus": driver_cpus != 0.0,
        "--working-dir": working_dir not in (None, Path()),
    }
    for option, is_given in given.items():
        if is_given:
            raise UserError(f"{option} concerns a Ray cluster: leave it out with --kubernetes")


def _connect(address: str | None) -> "dashboard.DashboardClient":
    with cluster_imports():
        from cluster.jobs.dashboard import connect

    return connect(address)


def _check(verb: str, rest: list[str]) -> None:
    """Refuses a wrong command line before it is submitted."""
    from rlcar.cli import app

    if verb not in _VERBS:
        raise UserError(f"cannot submit {verb!r}{nearest(verb, _VERBS)}")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands[verb].make_context(f"rlcar {verb}", list(rest))


def _follow(client: "dashboard.DashboardClient", job_id: str, address: str | None) -> None:
    from cluster.jobs import submit as job_tools

    terminal.end_when_closed()  # the job goes on
    try:
        with LogView() as view:
            job = job_tools.follow(client, job_id, view.show)
    except KeyboardInterrupt:
        text = _how_to_come_back(job_id, address)
        console.print(f"detached, the job goes on. {text}", markup=False, highlight=False)
        sys.exit(130)
    if why := job_tools.reason(job):
        raise UserError(f"{job_id} failed: {why}")
    console.print(f"{job_id}: {job.status.lower()}", highlight=False)
    sys.exit(job_tools.exit_code(job))


def _how_to_come_back(job_id: str, address: str | None) -> str:
    where = ["--address", address] if address else []
    back, end = command("jobs", "logs", job_id, *where), command("jobs", "stop", job_id, *where)
    return f"Come back with: {back}; end it with: {end}"


def _row(job: "JobDetails") -> dict[str, Any]:
    started_s = (job.start_time or 0) / 1000
    ended_s = job.end_time / 1000 if job.end_time else datetime.datetime.now().timestamp()
    return {
        "job": job.submission_id,
        "state": job.status.lower(),
        "started": datetime.datetime.fromtimestamp(started_s, datetime.UTC).isoformat(),
        "seconds": round(ended_s - started_s, 1),
        "command": (job.metadata or {}).get("rlcar") or job.entrypoint,
    }
