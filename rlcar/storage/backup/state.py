"""What the last backups did, for monitoring: a JSON file, and the same for Prometheus.

`backup-state.json` lies beside the run folder. The node exporter's textfile collector reads the
other one.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from rlcar.errors import UserError
from rlcar.system.durable import explaining_write_errors, replace_durably
from rlcar.system.regular_file import read_regular

_STATE_FILE = "backup-state.json"
_S_PER_DAY = 86_400.0
# Keys of the state file, and what they mean; the names of the metrics begin with `rlcar_backup_`.
METRICS = {
    "last_success_timestamp_seconds": "Unix time at which the last complete backup ended.",
    "last_attempt_timestamp_seconds": "Unix time at which the last backup ended, however it did.",
    "last_verify_timestamp_seconds": "Unix time of the last verification of all snapshots that "
    "found no damage.",
    "duration_seconds": "Duration of the backup that made the newest snapshot.",
    "size_bytes": "Size of all files in the newest snapshot.",
    "uploaded_bytes": "Bytes that the newest snapshot has added to the backup.",
    "files": "Number of files in the newest snapshot.",
    "skipped_files": "Number of files, folders and links that the newest snapshot lacks.",
    "consecutive_failures": "Number of failed backups since the last complete one.",
    "failures_total": "Number of failed backups and verifications so far.",
}


def default_state_file(runs: Path) -> Path:
    """Returns the place of the state file: beside the folder of runs, even if that is a link."""
    return Path(os.path.abspath(runs)).parent / _STATE_FILE


class State:
    """The state file of an installation."""

    def __init__(self, path: Path):
        self.path = path
        self.values = _read(path)
        self._before = dict(self.values)

    def made(self, target: str, snapshot: str, **amounts: float) -> None:
        """Records a new snapshot, which need not be complete."""
        self.values |= {"target": target, "snapshot": snapshot, **amounts}

    def succeeded(self) -> None:
        """Records that the backup ended without an error."""
        now_s = round(time.time(), 3)
        self.values |= {
            "last_error": None,
            "consecutive_failures": 0,
            "last_success_timestamp_seconds": now_s,
            "last_attempt_timestamp_seconds": now_s,
        }

    def failed(self, reason: str) -> None:
        """Records a backup that ended with an error."""
        self.values["last_attempt_timestamp_seconds"] = round(time.time(), 3)
        self.values["last_error"] = reason
        self.values["consecutive_failures"] += 1
        self.values["failures_total"] += 1

    def verified(self) -> None:
        """Records that all snapshots were read, and nothing was damaged."""
        self.values["last_verify_timestamp_seconds"] = round(time.time(), 3)

    def not_verified(self, reason: str) -> None:
        """Records a verification that found damage or could not be made."""
        self.values["last_error"] = reason
        self.values["failures_total"] += 1

    def is_backed_up_within(self, days: float) -> bool:
        """Whether the last complete backup is that recent; one in the far future is not."""
        age_s = time.time() - self.values["last_success_timestamp_seconds"]
        return abs(age_s) <= days * _S_PER_DAY

    def write(self, metrics_file: Path | None = None) -> None:
        """Replaces the state file, and the file for Prometheus; raises UserError.

        What another process has written meanwhile stays: a verification may end during a backup.
        """
        changed = {
            key: value for key, value in self.values.items() if value != self._before.get(key)
        }
        self.values = _read(self.path) | changed
        self._before = dict(self.values)
        text = json.dumps(self.values, indent=2) + "\n"
        with explaining_write_errors(self.path):
            replace_durably(self.path, text.encode(), 0o644)
        if metrics_file is not None:
            with explaining_write_errors(metrics_file):
                replace_durably(metrics_file, self.metrics(), 0o644)

    def collect(self) -> Iterator[Metric]:
        """Yields the numbers for Prometheus's client."""
        for name, meaning in METRICS.items():
            # A counter's name ends in _total, which its class adds.
            is_counter = name.endswith("_total")
            family = CounterMetricFamily if is_counter else GaugeMetricFamily
            yield family(f"rlcar_backup_{name}", meaning, value=self.values[name])

    def metrics(self) -> bytes:
        """Returns the numbers in Prometheus's text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(METRICS, 0) | {"last_error": None}
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError):
        return values
    if isinstance(found, dict):
        values |= {
            name: value
            for name, value in found.items()
            if name in METRICS and isinstance(value, int | float)
        }
        values |= {key: found.get(key) for key in ("target", "snapshot", "last_error")}
    return values


def write_quietly(state: State, metrics_file: Path | None) -> str:
    """Writes the state; returns why that failed, so that it does not hide another error."""
    try:
        state.write(metrics_file)
    except UserError as error:
        return str(error)
    return ""
