"""`rlcar submit` and `rlcar jobs`: a command of ours on a cluster, seen from elsewhere."""

import datetime
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table

from rlcar.cli.shared import console, import_cluster, number
from rlcar.errors import UserError, command
from rlcar.runs.metrics import read_progress_line
from rlcar.settings.explain import nearest
from rlcar.system import terminal
from rlcar.system.console import make_console

Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard: host, host:8265 or URL (default: this machine's)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
JobId = Annotated[str, typer.Argument(help="As rlcar submit or rlcar jobs list names it.")]

# Those that come to an end without a person in front of them.
_VERBS = ("train", "tune", "chaos", "evaluate", "dream", "profile")

jobs = typer.Typer(no_args_is_help=True, help="Lists, follows and stops what was submitted.")


def submit(
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- VERB …", help="E.g. -- train --mode test.")
    ],
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="Does not follow its log.")] = False,
    working_dir: Annotated[
        Path, typer.Option(help="A checkout to run instead of the installed program.")
    ] = Path(),
    python: Annotated[str, typer.Option(help="The interpreter on the head node.")] = "python",
    driver_cpus: Annotated[
        float, number(0, 65_536, help="Cores to reserve for the command itself.")
    ] = 0.0,
) -> None:
    """Runs a command of rlcar as a job on a Ray cluster and follows its log; Ctrl-C detaches."""
    _check(arguments[0], arguments[1:])
    job_tools = import_cluster("jobs.submit")
    client = import_cluster("jobs.dashboard").connect(address)
    entrypoint = job_tools.entrypoint_of(arguments, python)
    if kept := job_tools.default_folder(arguments):
        console.print(
            f"no folder named: what it makes will be in {kept} of the head node, which is enough "
            "for a cluster of one node; on more, name one that all of them share",
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
def list_jobs(address: Address = None, as_json: AsJson = False) -> None:
    """Lists the jobs of a cluster, oldest first."""
    rows = [
        _row(job)
        for job in import_cluster("jobs.submit").jobs(
            import_cluster("jobs.dashboard").connect(address)
        )
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(Column("job", no_wrap=True), "state", "began", "took", "command")
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
    address: Address = None,
    follow: Annotated[bool, typer.Option(help="Goes on until the job has ended.")] = True,
) -> None:
    """Shows what a job has said, and what it says; Ctrl-C leaves it alone."""
    client = import_cluster("jobs.dashboard").connect(address)
    import_cluster("jobs.submit").find_job(client, job)
    if follow:
        _follow(client, job, address)
    else:
        typer.echo(import_cluster("jobs.submit").logs(client, job), nl=False)


@jobs.command("stop")
def stop_job(job: JobId, address: Address = None) -> None:
    """Ends a job; a training saves a checkpoint first."""
    ended = import_cluster("jobs.submit").stop(
        import_cluster("jobs.dashboard").connect(address), job
    )
    console.print(f"{job}: {ended.status.lower()}", highlight=False)


def _check(verb: str, rest: list[str]) -> None:
    """Refuses here and now what the job would refuse later."""
    from rlcar.cli import app

    if verb not in _VERBS:
        raise UserError(f"cannot submit {verb!r}{nearest(verb, _VERBS)}")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands[verb].make_context(f"rlcar {verb}", list(rest))


def _follow(client: Any, job_id: str, address: str | None) -> None:
    job_tools = import_cluster("jobs.submit")
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


def _row(job: Any) -> dict[str, Any]:
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
        self._task: Any = None

    def __enter__(self) -> "LogView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()
        if self._rest:
            self._console.print(self._rest, markup=False, highlight=False)

    def show(self, text: str) -> None:
        """Takes in any part of a log."""
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
