"""What a pipeline has done, in files that are each complete or absent.

    <folder>/process.json               the process that runs the pipeline
             runs/0007/plan.json        settings, and the recorded episodes that the run uses
                       journal/*.json   one entry for each stage that is done, in their order
                       data/            the episodes
                       training/        one folder for each candidate
                       report.json, report.png

A run goes on at its first stage without an entry, whatever ended the process before.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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
# Runs whose episodes no later run learns from. Those of an abandoned run are new again.
_NOT_LEARNED_FROM: tuple[Outcome, ...] = ("invalid data", "abandoned")


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
    """One run of a pipeline; raises UserError if a file of it cannot be read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.number = int(folder.name)
        with _explaining(folder / _PLAN, folder):
            plan = _read(folder / _PLAN)
            self.began_s = float(plan["began_s"])
            self.settings: dict[str, Any] = dict(plan["settings"])
            self.spans = {name: Span(*span) for name, span in dict(plan["spans"]).items()}

    def entries(self) -> list[Entry]:
        """Returns the stages that are done, in the order in which they were written.

        The order is that of the numbers in the names of the files. The times come from the clocks
        of several machines, so they do not tell it.
        """
        found = []
        for path in sorted(self._paths(), key=lambda path: (_number(path), path.name)):
            with _explaining(path, self.folder):
                found.append(_entry(_read(path)))
        return found

    def values(self) -> dict[str, Any]:
        """Returns the outputs of all stages that are done, by their names."""
        return {name: value for one in self.entries() for name, value in one.outputs.items()}

    @property
    def ending(self) -> Entry | None:
        """The entry with which the run has ended; None while it is open."""
        return next((entry for entry in self.entries() if entry.outcome is not None), None)

    @property
    def outcome(self) -> Outcome | None:
        """How the run has ended; None while it is open."""
        ending = self.ending
        return None if ending is None else ending.outcome

    def write(self, entry: Entry) -> None:
        """Adds an entry; returns when it is on the disk.

        Raises UserError, and writes nothing, if the run has ended or the stage is done already, as
        another process may have written that meanwhile.
        """
        known = self.entries()
        ended = next((one.outcome for one in known if one.outcome is not None), None)
        if ended is not None:
            raise UserError(
                f"the run {self.folder} has ended meanwhile ({ended}): the result of its stage "
                f"{entry.stage} is dropped"
            )
        if entry.stage in {one.stage for one in known}:
            raise UserError(
                f"another process has finished the stage {entry.stage} of the run {self.folder} "
                "meanwhile: the result of this one is dropped"
            )
        folder = self.folder / _JOURNAL
        with durable.explaining_write_errors(folder):
            folder.mkdir(exist_ok=True)
            number = max(map(_number, self._paths()), default=0) + 1
            name = f"{number:02d}-{entry.stage.replace(' ', '-')}.json"
            durable.replace_durably(folder / name, _bytes(entry._asdict()))

    def _paths(self) -> list[Path]:
        found = (self.folder / _JOURNAL).glob("*.json")
        return [path for path in found if path.name.partition("-")[0].isdecimal()]


def runs(folder: Path) -> list[Run]:
    """Returns the runs of a pipeline, the oldest first; other folders beside them are left out."""
    return [Run(place) for place in _places(folder) if (place / _PLAN).exists()]


def used_spans(earlier: list[Run]) -> dict[str, Span]:
    """Returns the episodes that runs have used; those of abandoned runs are free again."""
    used: dict[str, Span] = {}
    for run in earlier:
        if run.outcome != "abandoned":
            used |= run.spans
    return used


def learned_again(earlier: Sequence[Run], history: int) -> list[Run]:
    """Returns the newest `history` runs whose episodes a later run learns from as well."""
    usable = [run for run in earlier if run.outcome not in _NOT_LEARNED_FROM]
    return usable[-history:] if history else []


def begin(folder: Path, settings: Mapping[str, Any], spans: Mapping[str, Span]) -> Run:
    """Begins a run."""
    numbers = [int(place.name) for place in _places(folder)]
    place = folder / _RUNS / f"{max(numbers, default=0) + 1:04d}"
    plan = {"began_s": time.time(), "settings": settings, "spans": spans}
    with durable.explaining_write_errors(place):
        place.mkdir(parents=True)
        durable.replace_durably(place / _PLAN, _bytes(plan))
    return Run(place)


def _places(folder: Path) -> list[Path]:
    """Returns the folders that are called as runs are, in the order of their numbers."""
    found = [place for place in (folder / _RUNS).glob("*") if place.name.isdecimal()]
    return sorted(found, key=lambda place: int(place.name))


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _bytes(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()


def _read(path: Path) -> Any:
    return json.loads(read_regular(path))


def _entry(tree: Any) -> Entry:
    """Returns an entry; raises TypeError or ValueError for anything else."""
    entry = Entry(**tree)
    if entry.outcome not in (None, *get_args(Outcome)):
        raise ValueError
    return entry._replace(
        began_s=float(entry.began_s),
        ended_s=float(entry.ended_s),
        inputs=dict(entry.inputs),
        outputs=dict(entry.outputs),
    )


@contextlib.contextmanager
def _explaining(path: Path, run: Path) -> Iterator[None]:
    """Says in one sentence which file of a run cannot be read."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a part of a pipeline's run ({type(error).__name__}): "
            f"restore it from a backup, or move {run} elsewhere, whose episodes are then new again"
        ) from None
