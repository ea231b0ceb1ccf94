"""Reference of metrics: those of a training, and what Prometheus finds of every process."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from docs._generate import markdown


class Exported(NamedTuple):
    """One metric under its name for Prometheus."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def render_training() -> str:
    """Returns the metrics of `metrics.jsonl` and TensorBoard in Markdown."""
    from rlcar.runs.metric_table import METRICS

    return "".join(
        markdown.entry(
            markdown.anchored(name, f"metric-{name.replace('/', '-')}"),
            metric.meaning,
            (f"unit: {metric.unit}" if metric.unit else "",),
        )
        for name, metric in METRICS.items()
    )


def render_exported() -> str:
    """Returns what a training exports to Prometheus."""
    from rlcar.runs.exported import EXPORTED

    of = defaultdict(list)
    for metric, exported in EXPORTED.items():
        of[exported.name].append(markdown.code(metric))
    return "".join(
        _entry(one, f"in `metrics.jsonl` {', '.join(of[one.name])}" if one.name in of else "")
        for one in exported_metrics()
    )


def render_observed() -> str:
    """Returns what `rlcar monitor` and `rlcar campaign` add for Prometheus."""
    return "".join(_entry(one) for one in observed_metrics())


def render_server() -> str:
    """Returns what the policy server and the live page export to Prometheus."""
    return "".join(_entry(one) for one in (*server_metrics(), *live_metrics()))


def _entry(metric: Exported, source: str = "") -> str:
    labels = ", ".join(map(markdown.code, metric.labels))
    facts = (metric.kind, f"labels {labels}" if labels else "", source)
    return markdown.entry(markdown.anchored(metric.name, metric.name), metric.meaning, facts)


def exported_metrics() -> Iterator[Exported]:
    """Yields the metrics of a training, each once, without Ray's prefix."""
    from rlcar.runs.exported import FAMILIES

    for one in FAMILIES:
        kind = "histogram" if one.bounds else "gauge"
        labels = ("run", "part") if one.part else ("run",)
        yield Exported(one.name, kind, labels, one.description)


def observed_metrics() -> Iterator[Exported]:
    """Yields the metrics that only an observer of runs and a campaign export."""
    from rlcar.campaigns.collector import CampaignCollector
    from rlcar.runs.collector import BackupCollector
    from rlcar.storage.backup.state import METRICS

    trained = {one.name for one in exported_metrics()}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        state.write_text(json.dumps(dict.fromkeys(METRICS, 0)))
        campaign: Any = SimpleNamespace(jobs=[], slots=0, is_paused=False, last_eta=None)
        collectors = CampaignCollector(campaign, Path(folder)), BackupCollector(state)
        for collector in collectors:
            yield from (one for one in _families(collector) if one.name not in trained)


def server_metrics() -> Iterator[Exported]:
    """Yields the metrics of a policy server, as its collector names them."""
    from rlcar.system.host_metrics import HOST
    from serve.observing.drift_metrics import drift_metrics
    from serve.observing.metrics import GAUGES, ServerMetrics
    from serve.recording.metrics import RecordingMetrics

    metrics = ServerMetrics()
    metrics.gauges = dict.fromkeys(GAUGES, 0.0)
    host = {one.name for one in HOST}  # described with the metrics of a training
    yield from (one for one in _families(metrics) if one.name not in host)
    yield from _families(RecordingMetrics())
    yield from _exported(drift_metrics((), 0, 0))


def live_metrics() -> Iterator[Exported]:
    """Yields the metrics that a live page adds."""
    from serve.live.metrics import LiveCollector

    session: Any = SimpleNamespace(stats=lambda: defaultdict(float), late_frames=0)
    yield from _families(LiveCollector(session))


def _families(collector: Any) -> Iterator[Exported]:
    return _exported(collector.collect())


def _exported(families: Any) -> Iterator[Exported]:
    for family in families:
        suffix = "_total" if family.type == "counter" else ""
        yield Exported(
            f"{family.name}{suffix}", family.type, tuple(family._labelnames), family.documentation
        )
