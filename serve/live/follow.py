"""Follows a run while a training writes it: new rows of its metrics, its newest policy."""

import json
import math
import os
from pathlib import Path
from typing import Any

from rlcar.storage import checkpoint
from rlcar.system.regular_file import open_regular

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
_MOST_BYTES = 1 << 26  # read in one look; the rest is read in the next
_MOST_ROWS = 1_500  # kept; older ones are thinned out


class RunFollower:
    """Reads what a run has become since the last look; all its methods touch the disk."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.rows: list[dict[str, Any]] = []
        self._place, self._inode, self._torn = 0, 0, b""
        self._latest: dict[str, tuple[frozenset, checkpoint.Save | None]] = {}

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Returns whether the rows begin anew (a resumed run rewrites them), and the new ones."""
        try:
            with open_regular(self.folder / "metrics.jsonl") as file:
                status = file.seek(0, 2), _inode(file)
                is_anew = status[1] != self._inode or status[0] < self._place
                if is_anew:
                    self.rows, self._place, self._torn = [], 0, b""
                self._inode = status[1]
                file.seek(self._place)
                text = self._torn + file.read(_MOST_BYTES)
                self._place = file.tell()
        except OSError:
            return False, []
        *lines, self._torn = text.split(b"\n")
        new = [row for row in map(_parse, lines) if row is not None]
        self.rows += new
        if len(self.rows) > _MOST_ROWS:
            self.rows = thinned(self.rows, _MOST_ROWS // 2)
        return is_anew, new

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


def thinned(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Returns the newer half whole and of the older rows every n-th; evaluations all stay."""
    cut = max(0, len(rows) - most // 2)
    every = -(-cut // max(1, most // 2))
    older = [
        row
        for place, row in enumerate(rows[:cut])
        if place % every == 0 or "evaluation/lap_rate" in row
    ]
    return older + rows[cut:]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.strip() else None
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("env_steps"), int):
        return None
    kept = {"env_steps": row["env_steps"], "time_s": row.get("time_s")}
    return kept | {name: row[name] for name in SERIES if _is_number(row.get(name))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _entries(folder: Path) -> frozenset[tuple[str, int]]:
    try:
        return frozenset((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder))
    except OSError:  # there is none yet, or one went while we looked
        return frozenset()


def _inode(file: Any) -> int:
    return os.fstat(file.fileno()).st_ino
