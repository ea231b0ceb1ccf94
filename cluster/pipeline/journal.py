"""What a pipeline has done, in files that are each complete or absent.

    <folder>/process.json               the process that runs the pipeline
             runs/0007/plan.json        settings, and the recorded episodes that the run uses
                       journal/*.json   one entry for each stage that is done
                       data/            the episodes
                       training/        one folder for each candidate
                       report.json, report.png

A run goes on at its first stage without an entry, whatever ended the process before.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cluster.pipeline.recordings import Span
from rlcar.errors import UserError
from rlcar.system import durable
from rlcar.system.regular_file import read_regular

Outcome = Literal[
    "promoted",
    "shadowed",
    "invalid data",
    "training failed",
    "stopped at a gate",
    "overtaken",
    "rolled back",
    "abandoned",
]
_PLAN, _JOURNAL, _RUNS = "plan.json", "journal", "runs"


class Entry(NamedTuple):
    """A stage that is done."""

    stage: str
    began_s: float  # Unix time
    ended_s: float
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    sentence: str
    outcome: Outcome | None = None  # of the whole run, if it ends here


class Run:
    """One run of a pipeline."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.number = int(folder.name)
        plan = _read(folder / _PLAN)
        self.began_s = float(plan["began_s"])
        self.settings: dict[str, Any] = plan["settings"]
        self.spans = {name: Span(*span) for name, span in plan["spans"].items()}

    def entries(self) -> list[Entry]:
        """Returns the stages that are done, in their order."""
        found = [Entry(**_read(path)) for path in (self.folder / _JOURNAL).glob("[0-9]*.json")]
        return sorted(found, key=lambda entry: entry.ended_s)

    def values(self) -> dict[str, Any]:
        """Returns the outputs of all stages that are done, by their names."""
        return {name: value for one in self.entries() for name, value in one.outputs.items()}

    @property
    def outcome(self) -> Outcome | None:
        """How the run has ended; None while it is open."""
        entries = self.entries()
        return entries[-1].outcome if entries else None

    def write(self, entry: Entry) -> None:
        """Adds an entry; returns when it is on the disk."""
        folder = self.folder / _JOURNAL
        with durable.explaining_write_errors(folder):
            folder.mkdir(exist_ok=True)
            number = len(list(folder.glob("[0-9]*.json"))) + 1
            name = f"{number:02d}-{entry.stage.replace(' ', '-')}.json"
            durable.replace_durably(folder / name, _bytes(entry._asdict()))


def runs(folder: Path) -> list[Run]:
    """Returns the runs of a pipeline, the oldest first."""
    places = (folder / _RUNS).glob("[0-9]*")
    return [Run(place) for place in sorted(places) if (place / _PLAN).exists()]


def used_spans(earlier: list[Run]) -> dict[str, Span]:
    """Returns the episodes that runs have used; those of abandoned runs are free again."""
    used: dict[str, Span] = {}
    for run in earlier:
        if run.outcome != "abandoned":
            used |= run.spans
    return used


def begin(folder: Path, settings: Mapping[str, Any], spans: Mapping[str, Span]) -> Run:
    """Begins a run."""
    numbers = [int(place.name) for place in (folder / _RUNS).glob("[0-9]*")]
    place = folder / _RUNS / f"{max(numbers, default=0) + 1:04d}"
    plan = {"began_s": time.time(), "settings": settings, "spans": spans}
    with durable.explaining_write_errors(place):
        place.mkdir(parents=True)
        durable.replace_durably(place / _PLAN, _bytes(plan))
    return Run(place)


def _bytes(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()


def _read(path: Path) -> Any:
    try:
        return json.loads(read_regular(path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): remove {path.parent}, or restore it "
            "from a backup"
        ) from None
