"""The report of a campaign: JSON, Markdown, and a picture of its slots, progress and end."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rlcar.campaigns.gpus import GpuUse
from rlcar.campaigns.snapshot import JobView, Snapshot
from rlcar.system.durable import explaining_write_errors, replace_text
from rlcar.system.provenance import provenance

REPORT = "report"
_T = TypeVar("_T")
_SECONDS_PER_HOUR = 3600.0
_MIB_PER_GIB = 1024.0


def write_report(folder: Path, snapshot: Snapshot) -> None:
    """Writes `report.json`, `report.md` and `report.png`; raises UserError if it cannot."""
    from rlcar.campaigns.pictures import draw_campaign  # Matplotlib takes a second to import

    tree = {**snapshot.tree(), "provenance": provenance(0)}
    with explaining_write_errors(folder / REPORT):
        replace_text(folder / f"{REPORT}.json", json.dumps(tree, indent=1, allow_nan=False) + "\n")
        replace_text(folder / f"{REPORT}.md", markdown(snapshot))
        draw_campaign(folder / f"{REPORT}.png", snapshot)


def headline(snapshot: Snapshot) -> str:
    """Returns the state of a campaign in one sentence."""
    parts = [f"{snapshot.count('done')} of {len(snapshot.jobs)} jobs done"]
    parts += [
        f"{count} {state}"
        for state in ("running", "stopping", "waiting", "pausing", "failed")
        if (count := snapshot.count(state))
    ]
    slots = f"{snapshot.slots} slot" + "s" * (snapshot.slots != 1)
    text = f"{snapshot.state}: {', '.join(parts)}; {slots}; {snapshot.share_done:.0%} of the time"
    return f"{text}; {_end(snapshot)}" if snapshot.eta is not None else text


def _end(snapshot: Snapshot) -> str:
    eta = snapshot.eta
    assert eta is not None
    likely = datetime.datetime.fromtimestamp(snapshot.at_unix_s + eta.likely_s)
    low, high = duration(eta.low_s), duration(eta.high_s)
    return f"{duration(eta.likely_s)} left ({low} to {high}), until {likely:%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Returns a duration such as `3:07:05`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def columns(job: JobView) -> dict[str, str]:
    """Returns what a table shows of a job: the header of each column and its text."""
    share = job.done / job.total if job.total else 0.0
    return {
        "job": job.name,
        "state": f"{job.state} ({job.stage})" if job.stage not in (None, "working") else job.state,
        "slot": _known(job.slot, lambda slot: str(slot)),
        "progress": f"{job.done:,.0f} of {job.total:,.0f} {job.unit} ({share:.0%})",
        "rate": _known(job.per_s, lambda rate: f"{rate:,.1f}/s ({job.rate_source})"),
        "left": _known(job.remaining_s, duration),
        "failures": f"{job.failures}: {job.failure}, {job.reason}" if job.failures else "",
        "GPU": "; ".join(map(_gpu, job.gpus)),
    }


def shown_columns(snapshot: Snapshot) -> list[str]:
    """Returns the headers of the columns that have a text for some job."""
    rows = [columns(job) for job in snapshot.jobs]
    return [header for header in rows[0] if any(row[header] for row in rows)]


def markdown(snapshot: Snapshot) -> str:
    """Returns the report as Markdown."""
    at = datetime.datetime.fromtimestamp(snapshot.at_unix_s)
    headers = shown_columns(snapshot)
    rows = [[columns(job)[header] for header in headers] for job in snapshot.jobs]
    lines = [
        f"# Campaign {snapshot.file}".rstrip(),
        "",
        f"{at:%Y-%m-%d %H:%M:%S}: {headline(snapshot)}.",
        "",
        *(f"| {' | '.join(map(_cell, row))} |" for row in (headers, ["---"] * len(headers), *rows)),
        "",
        f"![Slots, progress and expected end]({REPORT}.png)",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _known(value: _T | None, form: Callable[[_T], str]) -> str:
    return "" if value is None else form(value)


def _gpu(use: GpuUse) -> str:
    parts = [f"{use.device}:"]
    parts += [f"{use.utilisation:.0%}"] if use.utilisation is not None else []
    if use.memory_mb is not None and use.memory_total_mb is not None:
        used_gib, total_gib = use.memory_mb / _MIB_PER_GIB, use.memory_total_mb / _MIB_PER_GIB
        parts += [f"{used_gib:.1f} of {total_gib:.0f} GiB"]
    parts += [f"{use.temperature_c:.0f} °C"] if use.temperature_c is not None else []
    return " ".join(parts)
