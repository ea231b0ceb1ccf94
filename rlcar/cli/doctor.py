"""`rlcar doctor`: what keeps this machine, or a cluster, from training, and how to mend it."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from rlcar.cli.shared import RUNS, import_cluster
from rlcar.system.console import make_console
from rlcar.system.user_folders import expanded

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    address: Annotated[
        str | None, typer.Option(help="A cluster's dashboard to look at as well.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Where runs are to be kept, here and on the cluster.")
    ] = RUNS,
    python: Annotated[str, typer.Option(help="The interpreter on the head node.")] = "python",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Checks versions, token, ports, storage, GPU, shared memory and clock; says how to mend them.

    Exits with code 1 on a problem.
    """
    tools = import_cluster("doctor.machine")
    here = tools.examine(expanded(runs))
    parts = {"this machine": here}
    if address is not None:
        where = str(runs) if runs.is_absolute() else import_cluster("jobs.submit").DEFAULT_RUNS
        examine_cluster = import_cluster("doctor.cluster").examine_cluster
        outside, inside = examine_cluster(address, where, Path.cwd(), python)
        parts |= {"the cluster, from here": outside, "its head node": inside}
    if as_json:
        typer.echo(_as_json(tools.machine(), parts))
    else:
        _print(parts)
    sys.exit(1 if any(map(tools.has_problem, parts.values())) else 0)


def _as_json(machine: dict[str, Any], parts: dict[str, list[Any]]) -> str:
    machine |= {"ray_address": os.environ.get("RAY_ADDRESS")}
    findings = [{"where": where} | finding._asdict() for where in parts for finding in parts[where]]
    return json.dumps({"machine": machine, "findings": findings})


def _print(parts: dict[str, list[Any]]) -> None:
    console = make_console()
    for where, findings in parts.items():
        if not findings:
            continue
        found, fix = Column("found", overflow="fold"), Column("fix", overflow="fold")
        table = Table("check", "", found, fix, title=where, title_justify="left")
        for one in findings:
            state = f"[{_COLOURS[one.state]}]{one.state}[/]"
            table.add_row(one.check, state, escape(one.found), escape(one.fix))
        console.print(table)
