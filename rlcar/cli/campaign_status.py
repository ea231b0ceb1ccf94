"""`rlcar campaign status` and `watch`: what a campaign is doing, from any terminal."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from rlcar.cli.campaign_remote import Host, RemoteProgram, on_host
from rlcar.cli.shared import RUNS, AsJson, RunsFolder, number
from rlcar.errors import command
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from rlcar.campaigns.snapshot import Snapshot

_COLOURS = {"running": "green", "done": "bold green", "failed": "bold red", "pausing": "yellow"}
_NUMBERS = ("slot", "rate", "left")
_STALE_S = 30.0


def status(
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
    host: Host = None,
    remote_program: RemoteProgram = "rlcar",
) -> None:
    """Shows the jobs of a campaign, their rates and failures, and when it will end."""
    if host is not None:
        options = ["--json"] if as_json else []
        on_host(host, remote_program, ["status", "--runs", str(runs), *options])
    from rlcar.campaigns.snapshot import read

    snapshot = read(runs)
    if as_json:
        typer.echo(json.dumps(snapshot.tree(), indent=2))
        return
    make_console().print(picture(snapshot, runs))


def watch(
    runs: RunsFolder = RUNS,
    every: Annotated[float, number(0.2, 86_400, help="Seconds between two displays.")] = 2.0,
    host: Host = None,
    remote_program: RemoteProgram = "rlcar",
) -> None:
    """Shows the status of a campaign again and again until it ends, or until Ctrl-C."""
    if host is not None:
        words = ["watch", "--runs", str(runs), "--every", str(every)]
        on_host(host, remote_program, words, is_live=True)
    from rlcar.campaigns.snapshot import read

    terminal.end_when_closed()
    console = make_console()
    snapshot = read(runs)
    try:
        if not console.is_terminal:  # only a terminal can show the same place again
            while snapshot.state in ("running", "paused"):
                console.print(picture(snapshot, runs))
                time.sleep(every)
                snapshot = read(runs)
            console.print(picture(snapshot, runs))
            return
        with Live(picture(snapshot, runs), console=console, auto_refresh=False) as live:
            while snapshot.state in ("running", "paused"):
                time.sleep(every)
                snapshot = read(runs)
                live.update(picture(snapshot, runs), refresh=True)
    except KeyboardInterrupt:
        return


def picture(snapshot: "Snapshot", runs: Path | None = None) -> RenderableType:
    """Draws a campaign as a sentence and a table; `runs` is for hints from another terminal."""
    from rlcar.campaigns.report import columns, headline, shown_columns

    headers = shown_columns(snapshot)
    right = [header for header in _NUMBERS if header in headers]
    table = make_table(*headers, right=right, whole=("job",))
    for job in snapshot.jobs:
        row = columns(job)
        colour = _COLOURS.get(job.state, "default")
        row["state"] = f"[{colour}]{escape(row['state'])}[/]"
        table.add_row(*(row[h] if h == "state" else escape(row[h]) for h in headers))
    parts: list[RenderableType] = [Text(headline(snapshot)), table]
    if runs is not None:
        parts += [Text(hint, style="yellow") for hint in _hints(snapshot, runs)]
    return Group(*parts)


def _hints(snapshot: "Snapshot", runs: Path) -> list[str]:
    again = command("campaign", "run", snapshot.file or "FILE", "--runs", runs)
    if snapshot.state == "dead":
        return [f"the process of this campaign has ended without saying why: {again} continues it"]
    if snapshot.state == "stopped":
        return [f"the campaign was stopped: {again} continues it"]
    if snapshot.state == "paused":
        resume = command("campaign", "resume", "--runs", runs)
        return [f"the campaign is paused: {resume} continues it"]
    age_s = time.time() - snapshot.at_unix_s
    if snapshot.state == "running" and age_s > _STALE_S:
        return [f"this is {age_s:.0f} s old: the process of the campaign may be stopped"]
    return []
