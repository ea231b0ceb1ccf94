"""Deletes the checkpoints of runs that nobody has trained for a long time."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from rlcar.runs.folders import newest_first
from rlcar.storage import checkpoint
from rlcar.storage.checkpoint import delete_all
from rlcar.storage.saves import saves
from rlcar.system.durable import explaining_write_errors
from rlcar.system.lease import HeldError, hold, holder

_S_PER_DAY = 86_400.0


class Expired(NamedTuple):
    """A run whose checkpoints are old."""

    folder: Path
    saves: int
    size_bytes: int


def expire_checkpoints(
    root: Path, days: float, kept_runs: Collection[str], *, is_dry_run: bool = False
) -> list[Expired]:
    """Deletes the checkpoints of each run whose newest one is older than `days`.

    Everything else stays: settings, metrics, report and the best policy. A run without a best
    policy keeps its newest checkpoint. Runs in training, and those in `kept_runs`, are left alone.
    """
    expired = []
    for run in newest_first(root):
        found = saves(run / "checkpoints")
        if not found or run.name in kept_runs or holder(run):
            continue
        newest_unix_s = max(save.path.stat().st_mtime for save in found)
        if time.time() - newest_unix_s < days * _S_PER_DAY:
            continue
        has_best = checkpoint.latest_sound(run / "best") is not None
        needed = set() if has_best else {found[-1].path.name, *checkpoint.needs(found[-1])}
        old = [save for save in found if save.path.name not in needed]
        if not old:
            continue
        size_bytes = sum(
            file.stat().st_size for save in old for file in save.path.iterdir() if file.is_file()
        )
        if not is_dry_run:
            try:
                with hold(run), explaining_write_errors(run):
                    delete_all(old)
            except HeldError:
                continue  # a training has just begun
        expired.append(Expired(run, len(old), size_bytes))
    return expired
