"""A training seen from outside: its progress and its checkpoints, through the files of its run."""

import bisect
import statistics
from collections import deque
from pathlib import Path

from rlcar.runs.metrics_file import MetricsFollower, Row
from rlcar.storage import checkpoint

# A window counts as full rate at this share of the usual one: a second's rate varies by blocks.
FULL_RATE = 0.8
_CALM_WINDOWS = 30
_TAIL_BYTES = 65_536


class Watch:
    """Follows `metrics.jsonl`; times are the caller's clock, in seconds."""

    def __init__(self, folder: Path, window_s: float):
        self.folder = folder
        self.window_s = window_s
        self.env_steps = 0
        self.delivering = 0  # simulators that have delivered a block since they were started
        self.simulators = 1  # as many as there should be
        self.checkpoints_lost = 0
        self.env_steps_lost = 0  # learned from once, and driven again
        self.moved_s: float | None = None  # when env_steps last changed
        self._saves: list[int] = []  # env steps of the complete checkpoints
        self._times_s: list[float] = []  # when env_steps changed, since it last fell
        self._counts: list[int] = []
        self._calm = deque[float](maxlen=_CALM_WINDOWS)

    def look(self, now_s: float) -> None:
        """Takes in the newest row and the saves."""
        self._look_at_saves()
        row = _last_row(self.folder / "metrics.jsonl")
        if row is None:
            return
        self.delivering = int(row["cluster/simulators_delivering"])
        self.simulators = int(row["cluster/simulators"])
        seen = int(row["env_steps"])
        if seen == self.env_steps:
            return
        if seen < self.env_steps:
            self.env_steps_lost += self.env_steps - seen
            self._times_s, self._counts = [], []
        self.env_steps, self.moved_s = seen, now_s
        self._times_s.append(now_s)
        self._counts.append(seen)

    def _look_at_saves(self) -> None:
        saves = [save.env_steps for save in checkpoint.saves(self.folder / "checkpoints")]
        newest = max(saves, default=0)
        # Old ones are deleted for their age; a newer one that is gone was not good, or not found.
        self.checkpoints_lost += sum(save > newest for save in self._saves)
        self._saves = saves

    @property
    def is_whole(self) -> bool:
        """Whether every simulator delivers, as far as the driver knows."""
        return self.delivering >= self.simulators

    def rate(self, from_s: float, to_s: float) -> float | None:
        """Env steps per second between two moments; None when a part of it was not seen."""
        if not self._times_s or from_s < self._times_s[0] or to_s <= from_s:
            return None
        first = self._counts[bisect.bisect_right(self._times_s, from_s) - 1]
        last = self._counts[bisect.bisect_right(self._times_s, to_s) - 1]
        return (last - first) / (to_s - from_s)

    def usual_rate(self) -> float | None:
        """The median of the windows in which nothing had been disturbed."""
        return statistics.median(self._calm) if self._calm else None

    def note_calm(self, now_s: float) -> bool:
        """Adds the window that ends now to the usual ones, if it was seen whole."""
        rate = self.rate(now_s - self.window_s, now_s)
        if rate:
            self._calm.append(rate)
        return bool(rate)

    def is_full_rate(self, since_s: float, now_s: float) -> bool:
        """Whether the window that ends now lies after `since_s` and is as fast as usual."""
        usual = self.usual_rate()
        if usual is None or now_s - self.window_s < since_s:
            return False
        rate = self.rate(now_s - self.window_s, now_s)
        return rate is not None and rate >= FULL_RATE * usual


def is_newest_save_sound(folder: Path) -> bool:
    """Whether the newest complete checkpoint of a run is what was written; true without any."""
    for _ in range(3):
        newest = checkpoint.latest(folder / "checkpoints")
        if newest is None or not checkpoint.damage(newest):
            return True
        if newest.path.exists():
            return False  # else: it was deleted as too old while we read it
    return True


def _last_row(path: Path) -> Row | None:
    """Reads the last complete row that says how many simulators deliver; None without one."""
    end = MetricsFollower(path, _TAIL_BYTES).read()
    rows = [] if end is None else end.rows
    return next((row for row in reversed(rows) if "cluster/simulators_delivering" in row), None)
