"""`rlcar campaign pause|resume|slots|retry`: steers a campaign through its folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.campaign_remote import Host, RemoteProgram, on_host
from rlcar.cli.shared import RUNS, RunsFolder, say
from rlcar.errors import UserError, command
from rlcar.settings.explain import nearest

if TYPE_CHECKING:
    from rlcar.campaigns.commands import Command

_ANSWER_WITHIN_S = 10.0
_POLL_S = 0.1


def pause(
    runs: RunsFolder = RUNS, host: Host = None, remote_program: RemoteProgram = "rlcar"
) -> None:
    """Lets all jobs of a campaign save and stop, and starts no other until resume."""
    if host is not None:
        on_host(host, remote_program, ["pause", "--runs", str(runs)])
    from rlcar.campaigns.commands import Command

    _give(runs, Command("pause"), "its jobs save and stop")


def resume(
    runs: RunsFolder = RUNS, host: Host = None, remote_program: RemoteProgram = "rlcar"
) -> None:
    """Continues a campaign that was paused."""
    if host is not None:
        on_host(host, remote_program, ["resume", "--runs", str(runs)])
    from rlcar.campaigns.commands import Command

    _give(runs, Command("resume"), "its jobs continue from their checkpoints")


def slots(
    count: Annotated[str, typer.Argument(help="Number of jobs that may run at once.")],
    runs: RunsFolder = RUNS,
    host: Host = None,
    remote_program: RemoteProgram = "rlcar",
) -> None:
    """Changes how many jobs of a campaign run at once; surplus jobs save and wait."""
    from rlcar.campaigns.commands import MOST_SLOTS, Command

    if not (count.isascii() and count.isdigit() and len(count) <= 5) or not (
        1 <= int(count) <= MOST_SLOTS
    ):
        raise UserError(
            f"slots {count[:24]}: give a number from 1 to {MOST_SLOTS:,}; to stop all jobs for a "
            f"while, use {command('campaign', 'pause')}"
        )
    if host is not None:
        on_host(host, remote_program, ["slots", count, "--runs", str(runs)])
    _give(runs, Command("slots", slots=int(count)), f"up to {int(count)} jobs run at once")


def retry(
    job: Annotated[str, typer.Argument(help="Name of a job that has failed.")],
    runs: RunsFolder = RUNS,
    host: Host = None,
    remote_program: RemoteProgram = "rlcar",
) -> None:
    """Lets a failed job of a campaign begin again from its newest checkpoint."""
    if host is not None:
        on_host(host, remote_program, ["retry", job, "--runs", str(runs)])
    from rlcar.campaigns.commands import Command
    from rlcar.campaigns.snapshot import read

    states = {one.name: one.state for one in read(runs).jobs}
    if job not in states:
        raise UserError(f"the campaign in {runs} has no job {job!r}{nearest(job, list(states))}")
    if states[job] != "failed":
        raise UserError(
            f"job {job} has not failed, it is {states[job]}: only failed jobs can be retried"
        )
    _give(runs, Command("retry", job=job), f"job {job} waits for a slot")


def _give(runs: Path, given: "Command", effect: str) -> None:
    """Writes a command and waits until the campaign has carried it out."""
    from rlcar.campaigns import commands
    from rlcar.campaigns.snapshot import FOLDER, is_running, read

    file = read(runs).file or "FILE"
    name = commands.give(runs / FOLDER, given)
    again = command("campaign", "run", file, "--runs", runs)
    if not is_running(runs):
        say(f"noted: no process runs this campaign at the moment, so it counts from {again} on")
        return
    end_s = time.monotonic() + _ANSWER_WITHIN_S
    while commands.is_waiting(runs / FOLDER, name):
        if time.monotonic() >= end_s:
            say(f"noted: the campaign is busy and carries it out as soon as it can: {effect}")
            return
        time.sleep(_POLL_S)
    say(f"done: {effect}")
