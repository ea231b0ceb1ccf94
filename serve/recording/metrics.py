"""The metrics of a recording, in Prometheus's format."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.recording.messages import Report


class RecordingMetrics(Collector):
    """Counts of one server; the threads of its recorder write them."""

    def __init__(self) -> None:
        self.sessions = 0
        self.episodes = 0
        self.steps = 0
        self.deleted_episodes = 0
        self.bytes = 0
        self.lost_steps: Counter[str] = Counter()  # by reason
        self.is_working = True

    def add(self, report: Report) -> None:
        """Adds what the process that writes reports."""
        self.episodes += report.episodes
        self.steps += report.steps
        self.deleted_episodes += report.deleted_episodes
        self.bytes = report.bytes
        self.lost_steps.update(report.lost_steps)
        self.is_working = report.problem is None

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        for name, help_text, count in (
            ("sessions", "Sessions that were chosen for recording.", self.sessions),
            ("episodes", "Recorded episodes that were written to the disk.", self.episodes),
            ("steps", "Recorded steps that were written to the disk.", self.steps),
            (
                "deleted_episodes",
                "Recorded episodes that were deleted to stay below the limit of the disk.",
                self.deleted_episodes,
            ),
        ):
            yield CounterMetricFamily(f"rlcar_recording_{name}", help_text, value=count)
        lost = CounterMetricFamily(
            "rlcar_recording_lost_steps",
            "Steps of chosen sessions that are not in the recording, by reason.",
            labels=("reason",),
        )
        for reason, steps in list(self.lost_steps.items()):
            lost.add_metric((reason,), steps)
        yield lost
        yield GaugeMetricFamily(
            "rlcar_recording_bytes", "Size of this server's recording.", value=self.bytes
        )
        yield GaugeMetricFamily(
            "rlcar_recording_working",
            "1 while sessions can be recorded, 0 while they cannot be written; absent without "
            "--record.",
            value=float(self.is_working),
        )
