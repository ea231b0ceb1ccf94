"""Exports a training at a port of its own, and announces that port to a Prometheus nearby.

runs/targets/<name>.json     names the port, in the form of Prometheus's file-based discovery

The file is removed when the training ends as planned or is asked to stop. It stays after a failure
or `kill -9`: Prometheus then finds nothing at the port, and an alert says so.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

from rlcar.config import Config
from rlcar.errors import UserError, reason_of
from rlcar.runs.exported import FAMILIES, ExportingWatcher
from rlcar.system import durable
from rlcar.system.host_metrics import Exported
from rlcar.system.metrics_server import serving_metrics

TARGETS = "targets"


class ClientSink:
    """Keeps values in a registry of prometheus_client."""

    def __init__(self, run: str):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._run = run
        # A series exists from its first value on; before, no alert and no graph sees a zero.
        self._gauges = {one.name: self._gauge(one) for one in FAMILIES if not one.bounds}
        self._histograms = {one.name: self._histogram(one) for one in FAMILIES if one.bounds}

    def set(self, metric: Exported, value: float) -> None:
        """Sets a gauge."""
        labels = (self._run, metric.part) if metric.part else (self._run,)
        self._gauges[metric.name].labels(*labels).set(value)

    def observe(self, metric: Exported, value: float) -> None:
        """Adds a value to a histogram."""
        self._histograms[metric.name].observe(value)

    def _gauge(self, metric: Exported) -> Gauge:
        labels = ("run", "part") if metric.part else ("run",)
        return Gauge(metric.name, metric.description, labels, registry=self.registry)

    def _histogram(self, metric: Exported) -> Histogram:
        histogram = Histogram(
            metric.name,
            metric.description,
            ("run",),
            registry=self.registry,
            buckets=metric.bounds,
        )
        return histogram.labels(self._run)


@contextlib.contextmanager
def exporting(config: Config, folder: Path, port: int) -> Iterator[ExportingWatcher]:
    """Exports a run at `port` inside the block; yields the watcher that its Run notifies.

    Raises UserError if the port cannot be used.
    """
    sink = ClientSink(folder.name)
    with (
        serving_metrics(sink.registry, port) as bound,
        _announced(folder, bound),
        ExportingWatcher(sink, config, folder) as watcher,
    ):
        yield watcher


@contextlib.contextmanager
def _announced(folder: Path, port: int) -> Iterator[None]:
    """Names the port in `runs/targets` until the training ends as planned or is asked to stop."""
    path = folder.parent / TARGETS / f"{folder.name}.json"
    targets = [{"targets": [f"localhost:{port}"], "labels": {"run": folder.name}}]
    try:
        path.parent.mkdir(exist_ok=True)
        durable.replace_text(path, json.dumps(targets) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error
    try:
        yield
    except (SystemExit, KeyboardInterrupt):  # deliberate ends
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
