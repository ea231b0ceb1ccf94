"""Status of runs, read from their folders while other processes write them."""

import contextlib
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.config import load_config
from rlcar.errors import UserError
from rlcar.runs import stage_note
from rlcar.runs.completion import UNIMPROVED, expected_env_steps, is_at_its_end
from rlcar.runs.metrics import PlainProgress
from rlcar.runs.metrics_file import MetricsFollower, Row
from rlcar.runs.run import require_run
from rlcar.runs.stage_note import StageNote
from rlcar.storage import checkpoint
from rlcar.system import heartbeat, process_state
from rlcar.system.lease import RENEW_S

# Time without a row after which a run of an older version, without signs of life, counts as frozen.
_ROWLESS_INTERVALS = 60
_ROWLESS_AT_LEAST_S = 60.0
_ROWLESS_AT_START_S = 300.0

# A live process renews its lease; a busy disk may delay that.
MISSED_RENEWALS_S = 3 * RENEW_S

_TAIL_BYTES = 1 << 20  # of a long metrics file, the end that is read first
_RATE_WINDOW_S = 300.0

# Field of RunStatus -> metrics, of which the first that a run has counts.
_METRICS = {
    "episodes": ("episode/count",),
    "reward": ("episode/reward",),
    "lap_rate": ("episode/lap_rate",),
    "evaluation_lap_rate": ("evaluation/lap_rate",),
    "success_rate": ("episode/success_rate",),
    "evaluation_success_rate": ("evaluation/success_rate",),
    "env_steps_per_s": ("rollout/env_steps_per_s",),
    "train_steps_per_s": ("learner/train_steps_per_s",),
    "weights_lag_updates": ("rollout/weights_lag_updates",),
    "learner_idle_share": ("learner/idle_share",),
    "simulators_busy_share": ("cluster/simulators_busy_share",),
    "simulators": ("cluster/simulators_delivering",),
    "simulator_restarts": ("cluster/simulator_restarts",),
    "learner_restarts": ("cluster/learner_restarts",),
    "storage_failures": ("storage/failures",),
    "rollbacks": ("learner/rollbacks",),
}


class RunStatus(NamedTuple):
    """The status of a run for an operator; None is an unknown value."""

    name: str
    state: str  # starting, running, frozen, dead, failed, stopped, finished, unknown
    env_steps: int = 0
    total_env_steps: int = 0
    eta_s: float | None = None
    silent_s: float | None = None  # since the last sign of life
    checkpoint_age_s: float | None = None
    error: str | None = None
    stage: str | None = None  # one of `rlcar.system.heartbeat.STAGES`
    episodes: float | None = None
    reward: float | None = None
    lap_rate: float | None = None
    evaluation_lap_rate: float | None = None
    success_rate: float | None = None
    evaluation_success_rate: float | None = None
    env_steps_per_s: float | None = None
    train_steps_per_s: float | None = None
    weights_lag_updates: float | None = None
    learner_idle_share: float | None = None
    simulators_busy_share: float | None = None
    simulators: float | None = None
    simulator_restarts: float | None = None
    learner_restarts: float | None = None
    storage_failures: float | None = None
    rollbacks: float | None = None
    curriculum: StageNote | None = None  # which attempt of which stage it is


class Reading(NamedTuple):
    """What is known about a run at one moment."""

    status: RunStatus
    row: Row  # the newest value of each metric


class Card(NamedTuple):
    """A GPU of this machine."""

    number: int
    name: str
    utilisation: float  # 0 to 1
    memory_used_mb: float
    memory_total_mb: float


class RunReader:
    """Follows one run; each call of `status` reads only new rows."""

    def __init__(self, folder: Path, frozen_after_s: float = heartbeat.FROZEN_AFTER_S):
        """`frozen_after_s` is how long a process may be silent; slow stages multiply it."""
        self.folder = require_run(folder)
        config = load_config(self.folder / "config.json")
        self._training = config.training
        interval_s = _ROWLESS_INTERVALS * config.training.log_every_s
        self._rowless_s = max(_ROWLESS_AT_LEAST_S, interval_s)
        self._frozen_after_s = frozen_after_s
        self._process = process_state.Observer(self.folder)
        self._metrics = MetricsFollower(self.folder / "metrics.jsonl", _TAIL_BYTES)
        self._rows: deque[Row] = deque()  # of the rate's window
        self._latest: dict[str, Any] = {}

    def status(self, now_s: float | None = None) -> RunStatus:
        """Reads new rows and returns the status; `now_s` is Unix time."""
        now_s = time.time() if now_s is None else now_s
        info = process_state.read(self.folder)
        written_s = self._read()
        env_steps = int(self._latest.get("env_steps", 0))
        reported = self._process.sign_of_life(now_s)
        began_s = max(written_s or 0.0, float(info.get("time_unix_s") or 0.0))
        silent_s = max(0.0, now_s - began_s) if began_s else None
        if reported is not None:
            silent_s, is_frozen = reported.silent_s, self._is_frozen(reported, now_s)
        else:
            limit_s = _ROWLESS_AT_START_S if written_s is None else self._rowless_s
            is_frozen = silent_s is not None and silent_s > limit_s
        state = self._state(info, env_steps, is_frozen, written_s is not None)
        per_s = self._env_steps_per_s()
        end = self._expected_end(env_steps)
        left = None if end is None else max(0, end - env_steps)
        is_active = state in ("running", "frozen")
        return RunStatus(
            self.folder.name,
            state,
            env_steps,
            self._training.env_steps if end is None else end,
            eta_s=left / per_s if left is not None and per_s and is_active else None,
            silent_s=silent_s,
            checkpoint_age_s=self._checkpoint_age_s(now_s),
            error=info.get("error"),
            stage=reported.stage if reported is not None and is_active else None,
            curriculum=stage_note.read(self.folder),
            **{shown: self._metric(names) for shown, names in _METRICS.items()},
        )

    def reading(self) -> Reading:
        """Reads new rows; returns the status and the newest value of each metric."""
        return Reading(self.status(), self.latest())

    def latest(self) -> Row:
        """Returns the newest value of each metric, as of the last call of `status`."""
        return dict(self._latest)

    def _checkpoint_age_s(self, now_s: float) -> float | None:
        save = checkpoint.latest(self.folder / "checkpoints")
        with contextlib.suppress(FileNotFoundError):  # it may be deleted as an old one
            return None if save is None else max(0.0, now_s - save.path.stat().st_mtime)
        return None

    def _state(self, info: dict[str, Any], env_steps: int, is_frozen: bool, has_rows: bool) -> str:
        noted = info.get("state")
        if noted == "ended":
            episodes = int(self._latest.get("episode/count") or 0)
            note = stage_note.read(self.folder)
            is_passed = note is not None and note.is_passed
            is_at_end = is_passed or is_at_its_end(
                self._training, env_steps, episodes, int(self._latest.get(UNIMPROVED) or 0)
            )
            return "finished" if is_at_end else "stopped"
        if noted != "running":
            return "failed" if noted == "failed" else "unknown"
        if process_state.is_gone(info):
            return "dead"
        if is_frozen:
            return "frozen"
        return "running" if has_rows else "starting"

    def _expected_end(self, env_steps: int) -> int | None:
        return expected_env_steps(
            self._training,
            env_steps,
            int(self._latest.get("episode/count") or 0),
            self._latest.get("episode/length_env_steps"),
        )

    def _is_frozen(self, reported: heartbeat.SignOfLife, now_s: float) -> bool:
        """Whether its work makes no progress, or its process no longer renews the lease."""
        renewed_s = self._process.renewed_ago_s(now_s) or 0.0
        is_stopped = renewed_s > max(self._frozen_after_s, MISSED_RENEWALS_S)
        return is_stopped or heartbeat.is_frozen(reported, self._frozen_after_s)

    def _read(self) -> float | None:
        """Reads new rows; returns when the file was last written, None while it has no row."""
        new = self._metrics.read()
        if new is None:
            return None
        if new.is_restarted:
            self._latest = {}
            self._rows.clear()
        for row in new.rows:
            self._latest |= {name: value for name, value in row.items() if value is not None}
            self._rows.append(row)
            while row["time_s"] - self._rows[0]["time_s"] > _RATE_WINDOW_S:
                self._rows.popleft()
        return new.written_unix_s if self._latest else None

    def _env_steps_per_s(self) -> float | None:
        if len(self._rows) < 2:
            return None
        first, last = self._rows[0], self._rows[-1]
        seconds = last["time_s"] - first["time_s"]
        return (last["env_steps"] - first["env_steps"]) / seconds if seconds > 0 else None

    def _metric(self, names: tuple[str, ...]) -> float | None:
        return next((self._latest[name] for name in names if name in self._latest), None)


class RunsReader:
    """Follows every run below a folder, including runs that begin later."""

    def __init__(self, root: Path, frozen_after_s: float = heartbeat.FROZEN_AFTER_S):
        self._root, self._frozen_after_s = root, frozen_after_s
        self._readers: dict[Path, RunReader] = {}

    def statuses(self) -> list[RunStatus]:
        """Returns the status of each run, oldest first; raises UserError without such a folder."""
        return [reading.status for reading in self.readings()]

    def readings(self) -> list[Reading]:
        """Returns the status and the newest metrics of each run, as `statuses` does."""
        if not self._root.is_dir():
            raise UserError(f"{self._root} is not a folder of runs")
        for config in self._root.glob("*/config.json"):
            folder = config.parent
            if folder not in self._readers:
                with contextlib.suppress(UserError):  # a run that is just being created
                    self._readers[folder] = RunReader(folder, self._frozen_after_s)
        for folder in [folder for folder in self._readers if not folder.is_dir()]:
            del self._readers[folder]
        return [self._readers[folder].reading() for folder in sorted(self._readers, key=_began_s)]


def _began_s(folder: Path) -> float:
    try:
        return (folder / "run.json").stat().st_mtime
    except FileNotFoundError:
        return 0.0  # it is being deleted


def status_of_progress(name: str, state: str, progress: PlainProgress | None) -> RunStatus:
    """Derives the status of a run, whose folder cannot be read, from its newest progress line."""
    if progress is None:
        return RunStatus(name, "starting" if state == "running" else state)
    metrics: dict[str, Any] = {
        shown: value
        for shown, names in _METRICS.items()
        if (value := next((progress.metrics[n] for n in names if n in progress.metrics), None))
        is not None
    }
    hours, *rest = (progress.eta if progress.eta[0].isdigit() else "").split(":")
    eta_s = int(hours) * 3600.0 + int(rest[0]) * 60 + int(rest[1]) if rest else None
    return RunStatus(
        name,
        state,
        progress.env_steps,
        progress.total_env_steps,
        eta_s=eta_s if state == "running" else None,
        **metrics,
    )


def cards() -> list[Card]:
    """Returns the GPUs of this machine as nvidia-smi reports them; none without nvidia-smi."""
    fields = "index,name,utilization.gpu,memory.used,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return read_cards(done.stdout)


def read_cards(csv: str) -> list[Card]:
    """Parses the output of nvidia-smi; values that a GPU does not support become 0."""
    found = []
    for line in csv.splitlines():
        index, name, *numbers = (part.strip() for part in line.split(","))
        values = [float(n) if n.replace(".", "").isdigit() else 0.0 for n in numbers]
        found.append(Card(int(index), name, values[0] / 100, values[1], values[2]))
    return found
