"""Progress and checkpoints of a training, read from the files of its run."""

import bisect
import statistics
from collections import deque
from pathlib import Path

from rlcar.runs.metrics_file import MetricsFollower, Row
from rlcar.storage import checkpoint

# A window counts as full rate from this share of the undisturbed rate: rates vary by whole blocks.
FULL_RATE = 0.8
_MOST_WINDOWS = 30  # undisturbed windows of which the median is taken
_TAIL_BYTES = 65_536  # of metrics.jsonl, read at first
# A checkpoint may be deleted, because newer ones exist, while it is being checked.
_SAVE_TRIES = 3


class RunWatch:
    """Follows `metrics.jsonl`; all times are seconds of the caller's clock."""

    def __init__(self, folder: Path, window_s: float):
        self.folder = folder
        self.window_s = window_s
        self.env_steps = 0
        self.delivering = 0  # simulators that have delivered a block since they were started
        self.simulators = 1  # that should be running
        self.checkpoints_lost = 0
        self.env_steps_lost = 0  # learned from, lost, and to be driven again
        self.progress_s: float | None = None  # when env_steps last changed
        self._saves: list[int] = []  # env steps of the complete checkpoints
        self._times_s: list[float] = []  # when env_steps changed, since it last fell
        self._counts: list[int] = []
        self._undisturbed = deque[float](maxlen=_MOST_WINDOWS)

    def update(self, now_s: float) -> None:
        """Reads the newest row and the list of checkpoints."""
        self._update_saves()
        row = _last_row(self.folder / "metrics.jsonl")
        if row is None:
            return
        self.delivering = int(row["cluster/simulators_delivering"])
        self.simulators = int(row["cluster/simulators"])
        env_steps = int(row["env_steps"])
        if env_steps == self.env_steps:
            return
        if env_steps < self.env_steps:
            self.env_steps_lost += self.env_steps - env_steps
            self._times_s, self._counts = [], []
        self.env_steps, self.progress_s = env_steps, now_s
        self._times_s.append(now_s)
        self._counts.append(env_steps)

    def _update_saves(self) -> None:
        saves = [save.env_steps for save in checkpoint.saves(self.folder / "checkpoints")]
        newest = max(saves, default=0)
        # Old checkpoints are deleted for their age. A newer one that is gone was damaged or lost.
        self.checkpoints_lost += sum(save > newest for save in self._saves)
        self._saves = saves

    @property
    def do_all_deliver(self) -> bool:
        """Says whether every simulator delivers, as far as the driver knows."""
        return self.delivering >= self.simulators

    def rate(self, from_s: float, to_s: float) -> float | None:
        """Returns env steps per second between two times; None if part of it was not observed."""
        if not self._times_s or from_s < self._times_s[0] or to_s <= from_s:
            return None
        first = self._counts[bisect.bisect_right(self._times_s, from_s) - 1]
        last = self._counts[bisect.bisect_right(self._times_s, to_s) - 1]
        return (last - first) / (to_s - from_s)

    def undisturbed_rate(self) -> float | None:
        """Returns the median rate of the undisturbed windows; None without any."""
        return statistics.median(self._undisturbed) if self._undisturbed else None

    def add_undisturbed_window(self, now_s: float) -> bool:
        """Adds the window that ends now to the undisturbed ones, if it was observed completely."""
        rate = self.rate(now_s - self.window_s, now_s)
        if rate:
            self._undisturbed.append(rate)
        return bool(rate)

    def is_full_rate(self, since_s: float, now_s: float) -> bool:
        """Says whether the window that ends now began after `since_s` and has full rate."""
        undisturbed = self.undisturbed_rate()
        if undisturbed is None or now_s - self.window_s < since_s:
            return False
        rate = self.rate(now_s - self.window_s, now_s)
        return rate is not None and rate >= FULL_RATE * undisturbed


def is_newest_save_sound(folder: Path) -> bool:
    """Says whether the newest complete checkpoint of a run is undamaged; true without any."""
    for _ in range(_SAVE_TRIES):
        newest = checkpoint.latest(folder / "checkpoints")
        if newest is None or not checkpoint.damage(newest):
            return True
        if newest.path.exists():
            return False  # else it was deleted, because of its age, during the check
    return True


def _last_row(path: Path) -> Row | None:
    """Reads the last complete row that says how many simulators deliver; None without one."""
    end = MetricsFollower(path, _TAIL_BYTES).read()
    rows = [] if end is None else end.rows
    return next((row for row in reversed(rows) if "cluster/simulators_delivering" in row), None)
