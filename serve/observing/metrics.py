"""The server's metrics, by model version, in Prometheus's format."""

import bisect
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rlcar.system.host_metrics import host_values
from serve.guard.access import route_of

LATENCY_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
ACTION_BINS = 20  # from -1 to 1; values of exactly -1 have one more bin, below them
_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "WS"})
_ACTION_NAMES = ("steering", "throttle")  # where no version names them
# Values that are read when `/metrics` is requested; `ServerMetrics` counts the others.
GAUGES = {
    "rlcar_sessions": "Sessions whose recurrent states are kept.",
    "rlcar_session_cars": "Cars whose recurrent states are kept, over all sessions.",
    "rlcar_model_version": "Number of the model version that acts; absent while none does.",
    "rlcar_model_awaited": "1 while no version acts because the first one is still to be published "
    "(--wait-for-model), else 0.",
    "rlcar_model_published_timestamp_seconds": "Unix time at which the version that acts was "
    "published; absent while none does.",
    "rlcar_rollout_candidate_version": "Number of the version that a rollout introduces; absent "
    "without a rollout.",
    "rlcar_rollout_weight": "Percentage of the sessions that the candidate of a rollout drives.",
    "rlcar_rollout_shadow_weight": "Percentage of the sessions for which the candidate acts "
    "unseen.",
}


class VersionCounts:
    """Counts the answers of one model version; plain numbers, so counting costs a microsecond."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.latency_sum_s = 0.0
        self.cars = 0
        self.action_counts: list[list[int]] = []

    def add(self, source: str, latency_s: float, actions: list[list[float]]) -> None:
        """Counts one answer with its actions `[N][A]`."""
        self.sources[source] += 1
        self.latency_counts[bisect.bisect_left(LATENCY_BUCKETS_S, latency_s)] += 1
        self.latency_sum_s += latency_s
        self.cars += len(actions)
        while len(self.action_counts) < len(actions[0]):
            self.action_counts.append([0] * (ACTION_BINS + 1))
        if len(actions) == 1:
            for counts, value in zip(self.action_counts, actions[0], strict=True):
                counts[math.ceil((value + 1.0) * ACTION_BINS / 2)] += 1
            return
        bins = np.ceil((np.array(actions) + 1.0) * ACTION_BINS / 2).astype(np.intp)
        for counts, column in zip(self.action_counts, bins.T, strict=True):
            for index, count in enumerate(np.bincount(column)):
                counts[index] += int(count)


class ServerMetrics(Collector):
    """Counts of one process; `render()` is the answer of `/metrics`."""

    def __init__(self) -> None:
        self.versions: dict[int, VersionCounts] = {}
        self._action_names: dict[int, tuple[str, ...]] = {}  # by version
        self.statuses: Counter[tuple[str, str, int]] = Counter()  # (method, route, status)
        self.gauges: dict[str, float] = {}  # by the names of `GAUGES`
        self.swaps = 0
        self.failed_loads = 0
        self.registry_errors = 0
        self.is_registry_readable = True  # at the last read
        self.registry_read_unix_s = 0.0  # when it was last read successfully
        self.migrations = 0
        self.policy_errors = 0
        self.rollbacks = 0
        self.failed_messages = 0
        self._started_s = time.time()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def for_version(self, version: int | None) -> VersionCounts:
        """Returns the counts of one version; None stands for no model, as version 0."""
        counts = self.versions.get(version or 0)
        if counts is None:
            counts = self.versions[version or 0] = VersionCounts()
        return counts

    def name_actions(self, version: int, names: Sequence[str]) -> None:
        """Names the numbers of a version's actions, for its histograms."""
        self._action_names[version] = tuple(names)

    def count(self, method: str, path: str, status: int) -> None:
        """Counts an HTTP answer; unknown methods and routes are counted as `other`."""
        method = method if method in _METHODS else "other"
        self.statuses[method, route_of(path) or "other", status] += 1

    def render(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def register(self, collector: Collector) -> None:
        """Adds the metrics of another collector to `/metrics`."""
        self._registry.register(collector)

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        yield from self._answers()
        yield from self._actions()
        requests = CounterMetricFamily(
            "rlcar_http_requests",
            "HTTP responses, by method, route and status.",
            labels=("method", "route", "status"),
        )
        for (method, route, status), count in self.statuses.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        for name, help_text, count in (
            ("rlcar_model_swaps", "Changes of the model version that acts.", self.swaps),
            (
                "rlcar_model_load_failures",
                "Model versions that could not be loaded.",
                self.failed_loads,
            ),
            (
                "rlcar_registry_errors",
                "Failed attempts to read the registry.",
                self.registry_errors,
            ),
            (
                "rlcar_session_migrations",
                "Sessions that moved to another model version.",
                self.migrations,
            ),
            (
                "rlcar_policy_errors",
                "Failures of a policy, after which cars brake.",
                self.policy_errors,
            ),
            (
                "rlcar_rollbacks",
                "Rollouts that this process ended because of the candidate's faults.",
                self.rollbacks,
            ),
            (
                "rlcar_rollout_message_failures",
                "Messages about rollouts that a webhook or Grafana did not accept.",
                self.failed_messages,
            ),
        ):
            yield CounterMetricFamily(name, help_text, value=count)
        for name, value in self.gauges.items():
            yield GaugeMetricFamily(name, GAUGES[name], value=value)
        readable = float(self.is_registry_readable)
        help_text = "1 if the registry could be read at the last attempt, else 0."
        yield GaugeMetricFamily("rlcar_registry_readable", help_text, value=readable)
        yield GaugeMetricFamily(
            "rlcar_registry_last_read_timestamp_seconds",
            "Unix time at which the registry was last read successfully; 0 before the first time.",
            value=self.registry_read_unix_s,
        )
        for metric, value in host_values(Path.cwd()):
            yield GaugeMetricFamily(metric.name, metric.description, value=value)
        uptime_s = time.time() - self._started_s
        yield GaugeMetricFamily(
            "rlcar_uptime_seconds", "Time since the process started.", value=uptime_s
        )

    def _answers(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "rlcar_act_answers",
            "Answers with actions, by their source.",
            labels=("model_version", "source"),
        )
        cars = CounterMetricFamily(
            "rlcar_act_cars", "Cars that got an action.", labels=("model_version",)
        )
        latency = HistogramMetricFamily(
            "rlcar_act_latency_seconds",
            "Time from the arrival of a request to its answer.",
            labels=("model_version",),
        )
        for version, counts in self.versions.items():
            name = str(version)
            for source, count in counts.sources.items():
                answers.add_metric((name, source), count)
            cars.add_metric((name,), counts.cars)
            bounds = [*map(str, LATENCY_BUCKETS_S), "+Inf"]
            totals = np.cumsum(counts.latency_counts).tolist()
            buckets = list(zip(bounds, totals, strict=True))
            latency.add_metric((name,), buckets, counts.latency_sum_s)
        yield from (answers, cars, latency)

    def _actions(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "rlcar_act_action",
            "Histogram of the actions in answers.",
            labels=("model_version", "action"),
        )
        for version, counts in self.versions.items():
            names = self._action_names.get(version, _ACTION_NAMES)
            for index, values in enumerate(counts.action_counts):
                action = names[index] if index < len(names) else str(index)
                edges = [f"{2 * edge / ACTION_BINS - 1:.1f}" for edge in range(ACTION_BINS)]
                totals = np.cumsum(values).tolist()
                buckets = list(zip([*edges, "+Inf"], totals, strict=True))
                # Prometheus requires that a histogram with negative values has no sum.
                family.add_metric((str(version), action), buckets, sum_value=None)
        yield family
