"""What the journal of a campaign says about its past: `Scheduler` and `Predictor` repeat it."""

from pathlib import Path
from typing import Any

from rlcar.campaigns.prediction import Predictor
from rlcar.campaigns.scheduler import Event, Scheduler
from rlcar.errors import UserError
from rlcar.system.journal import DamagedJournalError, Journal


def open_journal(path: Path) -> Journal:
    """Reads a journal; raises UserError, with the way out, if it was damaged."""
    try:
        return Journal(path)
    except DamagedJournalError as error:
        raise UserError(f"{error}; {_way_out(path)}") from error


def replay(journal: Journal, scheduler: Scheduler, predictor: Predictor) -> list[dict[str, Any]]:
    """Repeats everything that happened.

    Returns the processes of jobs that the campaign's file has no longer, as
    `process_state.identity` describes them; they may still run. Raises UserError for a journal of
    another version.
    """
    of_removed_jobs: dict[str, dict[str, Any]] = {}
    for line in journal.lines:
        try:
            event = Event.from_tree(line.content)
            scheduler.apply(event)
            if event.kind == "measured" and event.job in predictor.meters and event.figures:
                predictor.meters[event.job].note(**event.figures)
        except (TypeError, KeyError, AssertionError) as error:
            raise UserError(
                f"line {line.sequence} of the journal {journal.path} was written by another "
                f"version of rlcar: continue with that version; {_way_out(journal.path)}"
            ) from error
        if event.job not in scheduler.jobs and event.process is not None:
            of_removed_jobs[event.job] = event.process
        elif event.kind in ("stopped", "done", "failed"):
            of_removed_jobs.pop(event.job, None)
    return list(of_removed_jobs.values())


def _way_out(journal: Path) -> str:
    folder = journal.parent
    return (
        f"or move {folder} elsewhere: the runs in {folder.parent} continue from their "
        "checkpoints, and only the counts of failures and the measured rates are lost"
    )
