"""`rlcar host …`: the hosts on which campaigns run, as this machine reaches them."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rlcar.cli.shared import console, number, say
from rlcar.errors import command
from rlcar.system.console import make_console
from rlcar.system.ssh import hosts
from rlcar.system.ssh.connection import look_at
from rlcar.system.tables import make_table
from rlcar.system.user_folders import expanded, temporary_folder

app = typer.Typer(
    no_args_is_help=True, help="Adds hosts to the SSH configuration, and tests them and this one."
)

Name = Annotated[str, typer.Argument(help="Name of the host, as in ssh NAME.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Says what would change, and changes nothing.")
]


@app.command()
def add(
    name: Name,
    address: Annotated[
        str, typer.Option(help="Where the host is: user@host, or host for the same user name.")
    ],
    port: Annotated[
        int | None, number(1, 65_535, help="Port of its SSH server (default: 22).")
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(help="File of the private key for this host (default: those that ssh tries)."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Adds a host to the SSH configuration of this user, or changes it there."""
    host = hosts.make_host(name, address, port, None if identity is None else expanded(identity))
    changes = hosts.add(host, hosts.ssh_folder(), is_dry_run=dry_run)
    _report(changes, is_dry_run=dry_run)
    if not dry_run:
        console.print(f"test it with: {command('host', 'test', name)}", highlight=False)


@app.command()
def remove(name: Name, dry_run: DryRun = False) -> None:
    """Removes a host that rlcar host add has written."""
    _report(hosts.remove(name, hosts.ssh_folder(), is_dry_run=dry_run), is_dry_run=dry_run)


@app.command("list")
def list_() -> None:
    """Lists the hosts that rlcar host add has written."""
    table = make_table("name", "settings")
    for name, block in hosts.blocks(hosts.ssh_folder()).items():
        settings = [line.strip() for line in block.splitlines()[1:] if line.strip()]
        table.add_row(name, ", ".join(settings))
    make_console().print(table)


@app.command()
def test(name: Name) -> None:
    """Connects to a host, and says what it has or what is in the way."""
    found = look_at(name)
    out = make_console(soft_wrap=True)
    facts = [found.system, f"{found.cores} cores" if found.cores else ""]
    facts += [f"{found.memory_gb:.0f} GB of memory"] if found.memory_gb else []
    facts += [found.cards or "no NVIDIA driver", found.tmux or "no tmux (apt-get install tmux)"]
    text = ", ".join(fact for fact in facts if fact)
    out.print(
        f"{name} answers after {found.connected_after_s:.1f} s: {text}",
        markup=False,
        highlight=False,
    )


@app.command()
def smoke(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Runs a small job on a card too, and fails without one.")
    ] = False,
) -> None:
    """Runs a small job on this host for each back end; exits with code 1 if one fails."""
    from rlcar.campaigns.smoke import JOBS, ON_A_CARD, run_small_jobs

    jobs = (*JOBS, *([ON_A_CARD] if gpu else []))
    folder = Path(tempfile.mkdtemp(prefix="rlcar-smoke-", dir=temporary_folder()))
    table = make_table("back end", "result", "seconds", "reason", right=("seconds",))
    failed = []
    for number_, result in enumerate(run_small_jobs(jobs, folder), start=1):
        seconds = f"{result.seconds:.1f}"
        say(f"{number_} of {len(jobs)}: {result.back_end}: {result.state} after {seconds} s")
        table.add_row(result.back_end, result.state, seconds, escape(result.reason))
        failed += [result] if result.state == "failed" else []
    make_console().print(table)
    if failed:
        if logs := [str(result.log) for result in failed if result.log is not None]:
            say(f"the logs of what failed: {', '.join(logs)}")
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


def _report(changes: list[str], *, is_dry_run: bool) -> None:
    for change in changes:
        text = f"would {change}" if is_dry_run else change
        console.print(text, markup=False, highlight=False)
    if not changes:
        console.print("everything is as it should be: nothing changed", highlight=False)
