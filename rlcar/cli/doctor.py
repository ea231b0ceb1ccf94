"""`rlcar doctor`: finds what prevents a training, here or on a cluster, and how to fix it."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli import kubernetes as k8s
from rlcar.cli.shared import RUNS, AsJson, PythonOnHead, cluster_imports
from rlcar.system.console import make_console
from rlcar.system.tables import make_ruled_table
from rlcar.system.user_folders import expanded

if TYPE_CHECKING:
    from cluster.doctor.machine import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="Dashboard of a Ray cluster to examine as well: host, host:8265 or URL."),
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Folder in which runs are kept, here and on the cluster.")
    ] = RUNS,
    python: PythonOnHead = "python",
    as_json: AsJson = False,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Examines a Kubernetes cluster with KubeRay as well."),
    ] = False,
    namespace: k8s.Namespace = None,
    context: k8s.Context = None,
    kubeconfig: k8s.Kubeconfig = None,
) -> None:
    """Checks versions, token, ports, storage, GPU, shared memory and clock, and names remedies.

    Exits with code 1 on a problem.
    """
    with cluster_imports():
        from cluster.doctor.machine import examine, has_problem, machine

    target = k8s.target_of(namespace, context, kubeconfig)
    if not kubernetes:
        k8s.refuse_without_kubernetes([], target)
    parts = {"this machine": examine(expanded(runs))}
    if address is not None:
        with cluster_imports():
            from cluster.doctor.cluster import examine_cluster
            from cluster.jobs.submit import DEFAULT_RUNS

        where = str(runs) if runs.is_absolute() else DEFAULT_RUNS
        outside, inside = examine_cluster(address, where, Path.cwd(), python)
        parts |= {"the cluster, from here": outside, "its head node": inside}
    if kubernetes:
        with cluster_imports():
            from cluster.doctor.kubernetes import examine_kubernetes

        parts |= {"Kubernetes": examine_kubernetes(target)}
    if as_json:
        typer.echo(_as_json(machine(), parts))
    else:
        _print(parts)
    sys.exit(1 if any(map(has_problem, parts.values())) else 0)


def _as_json(machine: dict[str, Any], parts: dict[str, list["Finding"]]) -> str:
    machine |= {"ray_address": os.environ.get("RAY_ADDRESS")}
    findings = [{"where": where} | finding._asdict() for where in parts for finding in parts[where]]
    return json.dumps({"machine": machine, "findings": findings})


def _print(parts: dict[str, list["Finding"]]) -> None:
    console = make_console()
    for where, findings in parts.items():
        if not findings:
            continue
        table = make_ruled_table("check", "state", "found", "fix")
        table.title, table.title_justify = where, "left"
        for finding in findings:
            state = f"[{_COLOURS[finding.state]}]{finding.state}[/]"
            table.add_row(finding.check, state, escape(finding.found), escape(finding.fix))
        console.print(table)
