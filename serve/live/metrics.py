"""The live session's figures for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serve.live.session import LiveSession


class LiveCollector:
    """Told to a registry of prometheus_client, it says how the session goes."""

    def __init__(self, live: LiveSession):
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Yields every family; called by prometheus_client."""
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


def metrics_text(live: LiveSession) -> bytes:
    """Prometheus's text format, of the session alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveCollector(live))
    return generate_latest(registry)
