"""Exports the state of every run below a folder to Prometheus.

It observes runs from outside, as `rlcar monitor` does. It therefore also reports a process that was
stopped, has died or has failed, which cannot answer Prometheus itself.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rlcar.errors import UserError
from rlcar.runs import exported
from rlcar.runs.monitor import Reading, RunStatus
from rlcar.storage.backup.state import METRICS
from rlcar.system.host_metrics import Exported, host_values
from rlcar.system.regular_file import read_regular

STATES = ("starting", "running", "frozen", "dead", "failed", "stopped", "finished", "unknown")
ACTIVE = ("starting", "running", "frozen")
BROKEN_OFF = ("failed", "dead")
# Runs that ended longer ago are not exported, so that the number of series stays bounded.
FORGET_AFTER_S = 7 * 86_400.0


class RunsCollector(Collector):
    """Collects the states of runs, and the newest metrics of those that are active.

    The metrics have the same names as those that a training exports itself; only the histograms of
    episodes are missing.
    """

    def __init__(self, read: Callable[[], Iterable[Reading]], folder: Path):
        """`read` may block on a disk; it is never called twice at the same time."""
        self._read, self._folder = read, folder
        self._lock = threading.Lock()

    def describe(self) -> Iterator[Metric]:
        """Yields nothing, so that registering does not read the disk."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        is_readable = 1.0
        with self._lock:
            try:
                readings = list(self._read())
            except (UserError, OSError):
                readings, is_readable = [], 0.0
        yield _gauge(
            "rlcar_runs_readable", "1 if the folder of runs can be read, else 0.", is_readable
        )
        now_s = time.time()
        kept = [one for one in readings if _is_recent(one.status)]
        yield from _states([one.status for one in kept], now_s)
        families = {one.name: _family(one) for one in exported.FAMILIES}
        for reading in kept:
            for metric, value in _values(reading, now_s):
                name = reading.status.name
                labels = (name, metric.part) if metric.part else (name,)
                families[metric.name].add_metric(labels, value)
        yield from (family for family in families.values() if family.samples)
        yield from host_families(self._folder)


class BackupCollector(Collector):
    """Collects what the last backups did, from the state file that `rlcar backup` writes."""

    def __init__(self, path: Path, *, is_optional: bool = False):
        """With `is_optional`, nothing is collected until there is a file."""
        self._path, self._is_optional = path, is_optional

    def describe(self) -> Iterator[Metric]:
        """Yields nothing, so that registering does not read the disk."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics that the file holds."""
        if self._is_optional and not self._path.exists():
            return
        state = self._state()
        yield _gauge(
            "rlcar_backup_state_readable",
            "1 if the state file of the backups can be read, else 0.",
            float(state is not None),
        )
        for name, meaning in METRICS.items():
            value = (state or {}).get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                yield _gauge(f"rlcar_backup_{name}", meaning, float(value))

    def _state(self) -> dict[str, Any] | None:
        try:
            state = json.loads(read_regular(self._path))
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None


def host_families(folder: Path) -> Iterator[Metric]:
    """Yields memory and disk of this host, without the label `run`."""
    try:
        values = list(host_values(folder))
    except OSError:
        return
    for metric, value in values:
        yield _gauge(metric.name, metric.description, value)


def _states(runs: list[RunStatus], now_s: float) -> Iterator[Metric]:
    """Yields the state of each run, how long it has been silent, and when it broke off."""
    states = GaugeMetricFamily(
        "rlcar_run_state", "1 for the present state of a run, else 0.", labels=("run", "state")
    )
    silent = GaugeMetricFamily(
        "rlcar_run_silent_seconds",
        "Time since the last sign of life of an active run.",
        labels=("run",),
    )
    ended = GaugeMetricFamily(
        "rlcar_run_ended_timestamp_seconds",
        "Unix time of the last sign of life of a run that failed or died.",
        labels=("run",),
    )
    for run in runs:
        for state in STATES:
            states.add_metric((run.name, state), float(run.state == state))
        if run.silent_s is not None and run.state in ACTIVE:
            silent.add_metric((run.name,), run.silent_s)
        if run.silent_s is not None and run.state in BROKEN_OFF:
            ended.add_metric((run.name,), now_s - run.silent_s)
    yield from (states, silent, ended)


def _values(reading: Reading, now_s: float) -> Iterator[tuple[Exported, float]]:
    status = reading.status
    yield exported.ACTIVE, float(status.state in ACTIVE)
    if status.state not in ACTIVE:
        return
    yield exported.ENV_STEPS, status.env_steps
    yield exported.TOTAL_ENV_STEPS, status.total_env_steps
    if status.checkpoint_age_s is not None:
        yield exported.LAST_CHECKPOINT, now_s - status.checkpoint_age_s
    yield from exported.exported_of_note(status.curriculum)
    yield from dict(exported.exported_of(reading.row)).items()


def _is_recent(status: RunStatus) -> bool:
    is_old = status.silent_s is not None and status.silent_s > FORGET_AFTER_S
    return status.state in ACTIVE or not is_old


def _family(metric: Exported) -> GaugeMetricFamily:
    labels = ("run", "part") if metric.part else ("run",)
    return GaugeMetricFamily(metric.name, metric.description, labels=labels)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)
