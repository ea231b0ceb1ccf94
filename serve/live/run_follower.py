"""Follows a run while a training writes it: the new rows of its metrics and its newest saves."""

import math
import os
from pathlib import Path

from rlcar.runs import stage_note
from rlcar.runs.metrics_file import MetricsFollower, Row
from rlcar.storage import checkpoint

# The metrics that are sent to the page; each algorithm logs some of them.
SERIES = (
    "episode/reward",
    "episode/lap_rate",
    "episode/success_rate",
    "evaluation/lap_rate",
    "evaluation/success_rate",
    "evaluation/episode_reward",
    "evaluation/charged_lap_steps",
    "model/loss",
    "actor/loss",
    "critic/loss",
    "actor/entropy",
    "actor/entropy_nats",
    "actor/exploration_probability",
    "rollout/env_steps_per_s",
    "learner/train_steps_per_s",
)
_LOSSES = ("model/loss", "critic/loss", "actor/loss")  # the first that a row has is its loss
_MAX_ROWS = 1_500  # in memory; above it, older rows are thinned out


class RunFollower:
    """Reads what a training has added to a run; every call may block on the disk."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.rows: list[Row] = []
        # Stage, attempt and thresholds of the run; None if it is in no curriculum.
        self.curriculum: str | None = None
        self._metrics = MetricsFollower(self.folder / "metrics.jsonl")
        self._latest: dict[str, tuple[frozenset, checkpoint.Save | None]] = {}

    def read(self) -> tuple[bool, list[Row]]:
        """Returns whether the file was rewritten, as by a resumed run, and the new rows."""
        note = stage_note.read(self.folder)
        self.curriculum = None if note is None else note.sentence()
        found = self._metrics.read()
        if found is None:
            return False, []
        if found.is_restarted:
            self.rows = []
        new = [_select_series(row) for row in found.rows if isinstance(row["env_steps"], int)]
        self.rows += new
        if len(self.rows) > _MAX_ROWS:
            self.rows = thin_out(self.rows, _MAX_ROWS // 2)
        return found.is_restarted, new

    def newest(self) -> checkpoint.Save | None:
        """Returns the newest complete save in `best` and `checkpoints`."""
        saves = [self.latest(kind) for kind in ("best", "checkpoints")]
        return max((save for save in saves if save), key=lambda save: save.env_steps, default=None)

    def latest(self, kind: str) -> checkpoint.Save | None:
        """Returns the newest complete save in `best` or `checkpoints`."""
        # This runs every second, and the description of a save is long: read only what changed.
        entries = _entries(self.folder / kind)
        if kind not in self._latest or self._latest[kind][0] != entries:
            self._latest[kind] = entries, checkpoint.latest(self.folder / kind)
        return self._latest[kind][1]

    def losses(self, count: int) -> list[float]:
        """Returns the last losses, those of the world model if the run has one."""
        found = (next((row[name] for name in _LOSSES if name in row), None) for row in self.rows)
        return [loss for loss in found if loss is not None][-count:]

    def last(self, name: str) -> float | None:
        """Returns the newest value of a metric."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)


def thin_out(rows: list[Row], limit: int) -> list[Row]:
    """Keeps the newest `limit / 2` rows, of the older rows every n-th, and all evaluations."""
    cut = max(0, len(rows) - limit // 2)
    stride = -(-cut // max(1, limit // 2))
    older = [
        row
        for index, row in enumerate(rows[:cut])
        if index % stride == 0 or "evaluation/lap_rate" in row
    ]
    return older + rows[cut:]


def _select_series(row: Row) -> Row:
    """Returns only the values of a row that are sent to the page."""
    kept = {"env_steps": row["env_steps"], "time_s": row.get("time_s")}
    return kept | {name: row[name] for name in SERIES if _is_number(row.get(name))}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _entries(folder: Path) -> frozenset[tuple[str, int]]:
    try:
        return frozenset((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder))
    except OSError:  # the folder does not exist yet, or an entry was deleted meanwhile
        return frozenset()
