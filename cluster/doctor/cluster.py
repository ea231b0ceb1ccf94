"""Checks whether a job can run on a cluster: from this machine, and from inside the cluster."""

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
    DashboardClient,
    address_of,
    authentication_mode,
    connect,
    dashboard_url,
    request_mode,
)
from cluster.jobs.submit import DEFAULT_RUNS, find_job, logs, stop, submit
from rlcar.errors import UserError

# A job uploads the program, starts a process of Ray and imports JAX.
_JOB_TIMEOUT_S = 180.0
_TIMEOUT_S = 20.0
_MOST_SKEW_S = 5.0  # between the clocks of the cluster and this machine
_SERVE_PORT = 8000


def examine_cluster(
    address: str | None, runs: str, folder: Path, python: str = "python"
) -> tuple[list[Finding], list[Finding]]:
    """Returns findings from this machine, and those of a job on the cluster's head node."""
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


def _reached(client: DashboardClient) -> Iterator[Finding]:
    mode = authentication_mode(client.url, _TIMEOUT_S)
    host, is_plain = address_of(client.url)[0], client.url.startswith("http:")
    is_here = host in ("127.0.0.1", "localhost", "::1")
    yield Finding("dashboard", "ok", f"{client.url} answers")
    if mode != "token" and not is_here:
        fix = "RAY_AUTH_MODE=token for ray start on every node"
        yield Finding(
            "token", "warning", "the cluster requires none: whoever reaches it controls it", fix
        )
    elif mode == "token" and is_plain and not is_here:
        fix = "put TLS in front of the dashboard, or use ssh -L"
        yield Finding("token", "warning", "accepted, but sent unencrypted", fix)
    else:
        accepted = f"accepted, from {client.token.source}" if client.token else "none is required"
        yield Finding("token", "ok", accepted)


def _clock(url: str) -> Iterator[Finding]:
    """Compares clocks by the date header of a response, which has whole seconds."""
    before_s = time.time()
    with request_mode(url, _TIMEOUT_S) as answer:
        date = answer.headers.get("Date")
    after_s = time.time()
    if date is None:
        return
    theirs_s = email.utils.parsedate_to_datetime(date).timestamp()
    skew_s = max(0.0, theirs_s - after_s, before_s - 1.0 - theirs_s)
    if skew_s > _MOST_SKEW_S:
        ahead = "ahead of" if theirs_s > after_s else "behind"
        found = f"the cluster's clock is {skew_s:.0f} s {ahead} ours"
        yield Finding("clock", "warning", found, "run an NTP service (chrony) on both")
    else:
        yield Finding("clock", "ok", f"less than {skew_s + 1:.0f} s apart")


def _ports(client: DashboardClient) -> Iterator[Finding]:
    host = address_of(client.url)[0]
    if listens(f"{host}:{_SERVE_PORT}"):
        yield Finding("Serve", "ok", f"{host}:{_SERVE_PORT} is open")
    else:
        yield Finding(
            "Serve", "ok", f"nothing answers at {host}:{_SERVE_PORT}, which only serving needs"
        )


def _nodes(client: DashboardClient) -> Iterator[Finding]:
    """Counts nodes and GPUs as Ray does."""
    try:
        summary = client.get_json("/nodes?view=summary")["data"]["summary"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        yield Finding("nodes", "warning", f"the dashboard does not list them ({error})")
        return
    states = [node.get("raylet", {}).get("state") for node in summary]
    gpus = sum(len(node.get("gpus") or []) for node in summary)
    found = f"{states.count('ALIVE')} alive, {states.count('DEAD')} dead, {gpus} GPU"
    yield Finding("nodes", "ok" if "ALIVE" in states else "problem", found)


def _versions(theirs: dict[str, str | None]) -> Iterator[Finding]:
    """Compares versions: jobs do not need equal ones, but a driver that joins from outside does."""
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
    fix = "rlcar submit works all the same; rlcar train --address needs the same Python and Ray"
    yield Finding("versions", "warning", "; ".join(differing), fix)


def _gcs(url: str, theirs: dict[str, str | None]) -> Iterator[Finding]:
    """Checks whether a driver on this machine could join the cluster."""
    port = urlsplit(f"//{theirs.get('ray_address') or ''}").port
    if port is None:
        return
    address = f"{address_of(url)[0]}:{port}"
    if listens(address):
        yield Finding("control service", "ok", f"{address} is open")
    else:
        found = f"{address} is closed from here, which only rlcar train --address needs"
        yield Finding("control service", "ok", found)


def _ask_inside(
    client: DashboardClient, runs: str, folder: Path, python: str
) -> tuple[dict[str, Any] | None, Finding]:
    """Runs `rlcar doctor --json` as a job; returns its report, or None, and the reason."""
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
            fix = "check with ray status whether the head node has a free core"
            return None, Finding(
                "job", "problem", f"no job finished within {_JOB_TIMEOUT_S:.0f} s", fix
            )
        output = logs(client, job_id)
        with contextlib.suppress(OSError, RuntimeError):
            client.delete_job(job_id)  # keep it out of the list of jobs
    except UserError as error:
        return None, Finding("job", "problem", str(error))
    for line in output.splitlines():
        if line.startswith('{"machine"'):
            return json.loads(line), Finding("job", "ok", "")
    last = next((line for line in reversed(output.splitlines()) if line.strip()), job.message or "")
    fix = "install rlcar[cluster] for a Python of the head node, and name that with --python"
    return None, Finding("job", "problem", f"a job fails on the head node: {last.strip()}", fix)
