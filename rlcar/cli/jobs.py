"""`rlcar submit` and `rlcar jobs`: runs a command of rlcar on a remote Ray cluster."""

import datetime
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from rlcar.cli.shared import (
    AsJson,
    DashboardAddress,
    PythonOnHead,
    cluster_imports,
    console,
    number,
)
from rlcar.errors import UserError, command
from rlcar.runs.metrics import read_progress_line
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
) -> None:
    """Runs a command of rlcar as a job on a Ray cluster and follows its log; Ctrl-C detaches."""
    _check(arguments[0], arguments[1:])
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
def list_jobs(address: DashboardAddress = None, as_json: AsJson = False) -> None:
    """Lists the jobs of a cluster, oldest first."""
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
) -> None:
    """Shows the log of a job and follows it; Ctrl-C does not stop the job."""
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    client = _connect(address)
    job_tools.find_job(client, job)
    if follow:
        _follow(client, job, address)
    else:
        typer.echo(job_tools.logs(client, job), nl=False)


@jobs.command("stop")
def stop_job(job: JobId, address: DashboardAddress = None) -> None:
    """Ends a job; a training saves a checkpoint first."""
    with cluster_imports():
        from cluster.jobs import submit as job_tools

    ended = job_tools.stop(_connect(address), job)
    console.print(f"{job}: {ended.status.lower()}", highlight=False)


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


class LogView:
    """Prints a job's log; on a terminal its progress lines become one bar at the bottom."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console(soft_wrap=True)
        self._rest = ""
        columns = (BarColumn(bar_width=20), TaskProgressColumn())
        text = TextColumn("ETA {task.fields[eta]}  {task.fields[text]}", markup=False)
        self._progress = Progress(*columns, text, console=self._console)
        self._task: TaskID | None = None

    def __enter__(self) -> "LogView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()
        if self._rest:
            self._console.print(self._rest, markup=False, highlight=False)

    def show(self, text: str) -> None:
        """Prints a further part of the log, of any length."""
        if not self._console.is_terminal:
            self._console.file.write(text)
            self._console.file.flush()
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            progress = read_progress_line(line)
            if progress is None:
                self._console.print(line, markup=False, highlight=False)
                continue
            if self._task is None:
                self._task = self._progress.add_task("train", total=1, eta="", text="")
                self._progress.start()
            self._progress.update(
                self._task,
                completed=progress.env_steps,
                total=progress.total_env_steps,
                eta=progress.eta,
                text=progress.text,
            )
