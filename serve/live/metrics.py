"""The live session's metrics for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.live.session import LiveSession


class LiveCollector(Collector):
    """Collects the metrics of a live session."""

    def __init__(self, live: LiveSession):
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        stats = self._live.stats()
        for name, help_text, key in (
            ("uptime_seconds", "Time since the session began.", "uptime_s"),
            ("viewers", "Number of open pages.", "viewers"),
            ("steps_per_second", "Recent rate of env steps of the car.", "steps_per_s"),
            ("is_manual", "1 while a person drives, else 0.", "manual_control"),
        ):
            yield GaugeMetricFamily(f"rlcar_live_{name}", help_text, value=float(stats[key]))
        for name, help_text, count in (
            ("env_steps", "Env steps of the car.", stats["steps"]),
            ("episodes", "Episodes that the car has ended.", stats["episodes"]),
            ("laps", "Laps that the car has finished.", stats["laps"]),
            ("late_frames", "Frames that were late and were dropped.", self._live.late_frames),
        ):
            yield CounterMetricFamily(f"rlcar_live_{name}", help_text, value=count)
