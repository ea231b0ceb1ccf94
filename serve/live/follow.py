"""Follows a run while a training writes it: new rows of its metrics, its newest policy."""

import math
import os
from pathlib import Path
from typing import Any

from rlcar.runs.metrics_file import MetricsFollower, Row
from rlcar.storage import checkpoint

# What the page draws, of what any algorithm may log.
SERIES = (
    "episode/reward",
    "episode/lap_rate",
    "evaluation/lap_rate",
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
_LOSSES = ("model/loss", "critic/loss", "actor/loss")  # the first that a row has stands for it
_MOST_ROWS = 1_500  # kept; older ones are thinned out


class RunFollower:
    """Reads what a run has become since the last look; all its methods touch the disk."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.rows: list[Row] = []
        self._metrics = MetricsFollower(self.folder / "metrics.jsonl")
        self._latest: dict[str, tuple[frozenset, checkpoint.Save | None]] = {}

    def read(self) -> tuple[bool, list[Row]]:
        """Returns whether the rows begin anew (a resumed run rewrites them), and the new ones."""
        found = self._metrics.read()
        if found is None:
            return False, []
        if found.is_restarted:
            self.rows = []
        new = [_drawn(row) for row in found.rows if isinstance(row["env_steps"], int)]
        self.rows += new
        if len(self.rows) > _MOST_ROWS:
            self.rows = thinned(self.rows, _MOST_ROWS // 2)
        return found.is_restarted, new

    def newest(self) -> checkpoint.Save | None:
        """Returns the newest complete save, of those that drove best and of all."""
        found = [self.latest(kind) for kind in ("best", "checkpoints")]
        return max((save for save in found if save), key=lambda one: one.env_steps, default=None)

    def latest(self, kind: str) -> checkpoint.Save | None:
        """Returns the newest complete save in `best` or `checkpoints`."""
        # Asked every second, and a save's description is a long text: only folders that changed.
        seen = _entries(self.folder / kind)
        if kind not in self._latest or self._latest[kind][0] != seen:
            self._latest[kind] = seen, checkpoint.latest(self.folder / kind)
        return self._latest[kind][1]

    def losses(self, count: int) -> list[float]:
        """Returns the last losses, of the world model where there is one."""
        found = (next((row[name] for name in _LOSSES if name in row), None) for row in self.rows)
        return [loss for loss in found if loss is not None][-count:]

    def last(self, name: str) -> float | None:
        """Returns the newest value of a metric."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)


def thinned(rows: list[Row], most: int) -> list[Row]:
    """Returns the newer half whole and of the older rows every n-th; evaluations all stay."""
    cut = max(0, len(rows) - most // 2)
    every = -(-cut // max(1, most // 2))
    older = [
        row
        for place, row in enumerate(rows[:cut])
        if place % every == 0 or "evaluation/lap_rate" in row
    ]
    return older + rows[cut:]


def _drawn(row: Row) -> Row:
    """Leaves what the page draws of a row."""
    kept = {"env_steps": row["env_steps"], "time_s": row.get("time_s")}
    return kept | {name: row[name] for name in SERIES if _is_number(row.get(name))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _entries(folder: Path) -> frozenset[tuple[str, int]]:
    try:
        return frozenset((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder))
    except OSError:  # there is none yet, or one went while we looked
        return frozenset()
