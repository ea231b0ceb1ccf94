"""Exports the metrics of a training through the metrics endpoint of Ray's nodes."""

from pathlib import Path

from ray.util.metrics import Gauge, Histogram

from rlcar.config import Config
from rlcar.runs.exported import FAMILIES, ExportingWatcher
from rlcar.system.host_metrics import Exported


class RaySink:
    """Passes values on to Ray, which prefixes `ray_` to each name. Ray must be running."""

    def __init__(self, run: str):
        self._tags = {"run": run}
        self._gauges = {one.name: self._gauge(one) for one in FAMILIES if not one.bounds}
        self._histograms = {one.name: self._histogram(one) for one in FAMILIES if one.bounds}

    def set(self, metric: Exported, value: float) -> None:
        """Sets a gauge."""
        tags = {"part": metric.part} if metric.part else {}
        self._gauges[metric.name].set(float(value), tags)

    def observe(self, metric: Exported, value: float) -> None:
        """Adds a value to a histogram."""
        self._histograms[metric.name].observe(value)

    def _gauge(self, metric: Exported) -> Gauge:
        keys = ("run", "part") if metric.part else ("run",)
        gauge = Gauge(metric.name, metric.description, keys)
        gauge.set_default_tags(self._tags)
        return gauge

    def _histogram(self, metric: Exported) -> Histogram:
        histogram = Histogram(metric.name, metric.description, list(metric.bounds), ("run",))
        histogram.set_default_tags(self._tags)
        return histogram


def ray_watcher(config: Config, folder: Path) -> ExportingWatcher:
    """Returns a watcher that exports a run through Ray."""
    return ExportingWatcher(RaySink(folder.name), config, folder)
