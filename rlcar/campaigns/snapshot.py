"""What is known about a campaign at one moment: what its status, its report and its page show.

<runs>/_campaign/process.json    the process that runs the campaign
                 journal.jsonl   everything that happened
                 status.json     a snapshot, rewritten every few seconds
                 report.json, report.md, report.png
                 commands/       what users ask for
                 errors/         the error that ended each job's process last
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rlcar.campaigns.eta import Interval
from rlcar.campaigns.gpus import GpuUse
from rlcar.campaigns.scheduler import Span
from rlcar.errors import UserError, command
from rlcar.system import process_state
from rlcar.system.durable import replace_text

FOLDER = "_campaign"
STATUS = "status.json"
_ACTIVE = ("running", "paused", "stopping")


@dataclasses.dataclass(frozen=True)
class JobView:
    """One job at one moment; None is an unknown value."""

    name: str
    state: str
    slot: int | None
    done: float  # of its work
    total: float
    unit: str  # of its work: env steps or episodes
    per_s: float | None  # measured rate in that unit
    rate_source: str  # own, settings, kind, hours or guess
    remaining_s: float | None
    failures: int
    freezes: int
    failure: str  # class of the last failure
    reason: str  # of the last failure
    stage: str | None
    silent_s: float | None
    gpus: list[GpuUse]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A campaign at one moment."""

    file: str
    state: str  # running, paused, stopped or over
    at_unix_s: float
    began_unix_s: float
    slots: int
    share_done: float  # of the whole time that all jobs together take
    eta: Interval | None  # None when nothing is left, or while the campaign is paused
    jobs: list[JobView]
    spans: list[Span]

    def count(self, state: str) -> int:
        """Returns how many jobs are in a state."""
        return sum(job.state == state for job in self.jobs)

    def tree(self) -> dict[str, Any]:
        """Returns the snapshot as JSON has it; `share_done` and ETA lie beside the jobs."""
        return {
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
                if field.name not in ("eta", "jobs", "spans")
            },
            "eta": None if self.eta is None else self.eta._asdict(),
            "jobs": [
                {**dataclasses.asdict(job), "gpus": [use._asdict() for use in job.gpus]}
                for job in self.jobs
            ],
            "spans": [span._asdict() for span in self.spans],
        }


def write(folder: Path, snapshot: Snapshot) -> None:
    """Replaces the status in a campaign's folder."""
    replace_text(folder / STATUS, json.dumps(snapshot.tree(), allow_nan=False) + "\n")


def read(runs: Path) -> Snapshot:
    """Reads the newest snapshot; its state is `dead` if no process runs the campaign any more.

    Raises UserError if no campaign has run in the folder.
    """
    folder = runs / FOLDER
    tree = process_state.parse(folder / STATUS)
    if not tree:
        raise UserError(
            f"there is no campaign in {runs}: start one with "
            f"{command('campaign', 'run', 'FILE', '--runs', runs)}, or name its folder with --runs"
        )
    try:
        snapshot = _snapshot(tree)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / STATUS} was not written by this version of rlcar: continue the campaign "
            "with this version, which writes it again"
        ) from None
    if snapshot.state in _ACTIVE and not is_running(runs):
        return dataclasses.replace(snapshot, state="dead", eta=None)
    return snapshot


def is_running(runs: Path) -> bool:
    """Whether a process runs the campaign, as far as this machine can see."""
    info = process_state.read(runs / FOLDER)
    return info.get("state") == "running" and not process_state.is_gone(info)


def _snapshot(tree: dict[str, Any]) -> Snapshot:
    eta = None if tree["eta"] is None else Interval(**tree["eta"])
    jobs = [
        JobView(**{**job, "gpus": [GpuUse(**use) for use in job["gpus"]]}) for job in tree["jobs"]
    ]
    spans = [Span(**span) for span in tree["spans"]]
    return Snapshot(**{**tree, "eta": eta, "jobs": jobs, "spans": spans})
