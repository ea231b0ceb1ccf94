"""Reference of metrics: those of a training, and what Prometheus finds of trainings and servers."""

from collections import defaultdict
from collections.abc import Iterator
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


def render_cluster() -> str:
    """Returns what a training on Ray exports to Prometheus."""
    from cluster.training.prometheus import EXPORTED

    of = defaultdict(list)
    for metric, exported in EXPORTED.items():
        of[f"ray_{exported.name}"].append(markdown.code(metric))
    return "".join(
        _entry(one, f"in `metrics.jsonl` {', '.join(of[one.name])}" if one.name in of else "")
        for one in cluster_metrics()
    )


def render_server() -> str:
    """Returns what the policy server and the live page export to Prometheus."""
    return "".join(_entry(one) for one in (*server_metrics(), *live_metrics()))


def _entry(metric: Exported, source: str = "") -> str:
    labels = ", ".join(map(markdown.code, metric.labels))
    facts = (metric.kind, f"labels {labels}" if labels else "", source)
    return markdown.entry(markdown.anchored(metric.name, metric.name), metric.meaning, facts)


def cluster_metrics() -> Iterator[Exported]:
    """Yields the metrics of a training on Ray, each once, with Ray's prefix."""
    from cluster.training.prometheus import EPISODE_LENGTH, EPISODE_REWARD, EXPORTED, OTHERS

    for one in dict.fromkeys((*EXPORTED.values(), *OTHERS)):
        if one.part not in ("", "model"):
            continue  # named by its first part already
        kind = "histogram" if one in (EPISODE_LENGTH, EPISODE_REWARD) else "gauge"
        labels = ("run", "part") if one.part else ("run",)
        yield Exported(f"ray_{one.name}", kind, labels, one.description)


def server_metrics() -> Iterator[Exported]:
    """Yields the metrics of a policy server, as its collector names them."""
    from serve.observing.metrics import GAUGES, ServerMetrics

    metrics = ServerMetrics()
    metrics.gauges = dict.fromkeys(GAUGES, 0.0)
    yield from _families(metrics)


def live_metrics() -> Iterator[Exported]:
    """Yields the metrics that a live page adds."""
    from serve.live.metrics import LiveCollector

    session: Any = SimpleNamespace(stats=lambda: defaultdict(float), late_frames=0)
    yield from _families(LiveCollector(session))


def _families(collector: Any) -> Iterator[Exported]:
    for family in collector.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield Exported(
            f"{family.name}{suffix}", family.type, tuple(family._labelnames), family.documentation
        )
