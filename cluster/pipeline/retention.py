"""Deletes the episodes that no later run needs. Journals, trainings and reports stay."""

import shutil
from pathlib import Path

from cluster.pipeline.journal import Run, learned_again, runs

# Episodes of `data/` that a training has merged, or divided into those it learns from and others.
_COPIES = ("parts", "learned", "training/*/data")


def delete_unneeded(folder: Path, history: int) -> None:
    """Deletes copies of episodes in the folder of a pipeline whose runs have ended.

    `data/` stays for the newest run and for the `history` runs that the next one learns from as
    well. Which episodes a run has used is in its plan, which stays. What cannot be deleted now is
    deleted after the next run.
    """
    found = [run for run in runs(folder) if run.outcome is not None]
    kept = {run.number for run in [*learned_again(found, history), *found[-1:]]}
    for run in found:
        _delete_copies(run)
        if run.number not in kept:
            shutil.rmtree(run.folder / "data", ignore_errors=True)


def _delete_copies(run: Run) -> None:
    for pattern in _COPIES:
        for place in run.folder.glob(pattern):
            shutil.rmtree(place, ignore_errors=True)
