"""Looks for what keeps a job of ours from running on a cluster, from outside and from inside."""

import contextlib
import email.utils
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.doctor.machine import Finding, listens, machine
from cluster.jobs.dashboard import (
    Dashboard,
    address_of,
    ask,
    authentication_mode,
    connect,
    dashboard_url,
)
from cluster.jobs.submit import DEFAULT_RUNS, find_job, logs, stop, submit
from rlcar.errors import UserError

# A job of one node: upload, a process of Ray, and Python with JAX.
_JOB_TIMEOUT_S = 180.0
_SKEW_S = 5.0


def examine_cluster(
    address: str | None, runs: str, folder: Path, python: str = "python"
) -> tuple[list[Finding], list[Finding]]:
    """Returns findings seen from here, and those of a job on the cluster's head node."""
    url = dashboard_url(address)
    try:
        client = connect(address)
    except UserError as error:
        listening = listens(":".join(map(str, address_of(url))))
        text, _, fix = str(error).rpartition(": ")
        return [Finding("token" if listening else "dashboard", "problem", text, fix)], []
    outside = [*_reached(client), *_clock(url), *_ports(client), *_nodes(client)]
    report, failure = _ask_inside(client, runs, folder, python)
    if report is None:
        return [*outside, failure], []
    inside = [
        Finding(**{name: row[name] for name in Finding._fields}) for row in report["findings"]
    ]
    return [*outside, *_versions(report["machine"]), *_gcs(url, report["machine"])], inside


def _reached(client: Dashboard) -> Iterator[Finding]:
    mode = authentication_mode(client.url, 20.0)
    host, is_plain = address_of(client.url)[0], client.url.startswith("http:")
    is_here = host in ("127.0.0.1", "localhost", "::1")
    yield Finding("dashboard", "ok", f"{client.url} answers")
    if mode != "token" and not is_here:
        fix = "RAY_AUTH_MODE=token for ray start on every node"
        yield Finding("token", "warning", "the cluster wants none: who reaches it, rules it", fix)
    elif mode == "token" and is_plain and not is_here:
        fix = "put TLS before the dashboard, or go through ssh -L"
        yield Finding("token", "warning", "accepted, but it travels unencrypted", fix)
    else:
        accepted = f"accepted, from {client.token.source}" if client.token else "none is wanted"
        yield Finding("token", "ok", accepted)


def _clock(url: str) -> Iterator[Finding]:
    """Compares clocks by the date of an answer, which counts whole seconds."""
    before_s = time.time()
    with ask(url, 20.0) as answer:
        date = answer.headers.get("Date")
    after_s = time.time()
    if date is None:
        return
    theirs_s = email.utils.parsedate_to_datetime(date).timestamp()
    skew_s = max(0.0, theirs_s - after_s, before_s - 1.0 - theirs_s)
    if skew_s > _SKEW_S:
        ahead = "ahead of" if theirs_s > after_s else "behind"
        found = f"the cluster's is {skew_s:.0f} s {ahead} ours"
        yield Finding("clock", "warning", found, "run an NTP service (chrony) on both")
    else:
        yield Finding("clock", "ok", f"less than {skew_s + 1:.0f} s apart")


def _ports(client: Dashboard) -> Iterator[Finding]:
    host = address_of(client.url)[0]
    if listens(f"{host}:8000"):
        yield Finding("Serve", "ok", f"{host}:8000 is open")
    else:
        yield Finding("Serve", "ok", f"nothing at {host}:8000, which only serving needs")


def _nodes(client: Dashboard) -> Iterator[Finding]:
    """Counts nodes and cards as Ray does."""
    try:
        summary = client.get_json("/nodes?view=summary")["data"]["summary"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        yield Finding("nodes", "warning", f"the dashboard does not list them ({error})")
        return
    states = [node.get("raylet", {}).get("state") for node in summary]
    cards = sum(len(node.get("gpus") or []) for node in summary)
    found = f"{states.count('ALIVE')} alive, {states.count('DEAD')} dead, {cards} GPU"
    yield Finding("nodes", "ok" if "ALIVE" in states else "problem", found)


def _versions(theirs: dict[str, Any]) -> Iterator[Finding]:
    """Jobs need no equal versions; a driver that joins from outside does."""
    ours = machine()
    differing = [
        f"{name} {ours[name]} here, {theirs[name]} there"
        for name in ("python", "ray", "jax", "rlcar")
        if ours[name] != theirs[name]
    ]
    names = ", ".join(f"{name} {theirs[name]}" for name in ("python", "ray", "jax", "rlcar"))
    if not differing:
        yield Finding("versions", "ok", f"the same here and there: {names}")
        return
    fix = "rlcar submit does not mind; rlcar train --address needs the same Python and Ray"
    yield Finding("versions", "warning", "; ".join(differing), fix)


def _gcs(url: str, theirs: dict[str, Any]) -> Iterator[Finding]:
    """Whether a driver could join from here."""
    port = urlsplit(f"//{theirs.get('ray_address') or ''}").port
    if port is None:
        return
    address = f"{address_of(url)[0]}:{port}"
    if listens(address):
        yield Finding("control service", "ok", f"{address} is open")
    else:
        found = f"{address} is closed from here, which only rlcar train --address minds"
        yield Finding("control service", "ok", found)


def _ask_inside(
    client: Dashboard, runs: str, folder: Path, python: str
) -> tuple[dict[str, Any] | None, Finding]:
    """Runs `rlcar doctor --json` as a job; else says why there is no report."""
    where = runs if runs == DEFAULT_RUNS else shlex.quote(runs)
    command = f"{shlex.quote(python)} -m rlcar doctor --json --runs {where}"
    try:
        job_id = submit(client, ["doctor"], command, folder).job_id
        job, end_s = find_job(client, job_id), time.monotonic() + _JOB_TIMEOUT_S
        while not job.status.is_terminal() and time.monotonic() < end_s:
            time.sleep(0.5)
            job = find_job(client, job_id)
        if not job.status.is_terminal():
            stop(client, job_id)
            fix = "see whether the head node has a core to spare: ray status"
            return None, Finding("job", "problem", f"none ran in {_JOB_TIMEOUT_S:.0f} s", fix)
        said = logs(client, job_id)
        with contextlib.suppress(OSError, RuntimeError):
            client.delete_job(job_id)  # nobody wants to see it in a list
    except UserError as error:
        return None, Finding("job", "problem", str(error))
    for line in said.splitlines():
        if line.startswith('{"machine"'):
            return json.loads(line), Finding("job", "ok", "")
    last = next((line for line in reversed(said.splitlines()) if line.strip()), job.message or "")
    fix = "install rlcar[cluster] for the Python of the head node, and name it with --python"
    return None, Finding("job", "problem", f"a job fails on the head node: {last.strip()}", fix)
