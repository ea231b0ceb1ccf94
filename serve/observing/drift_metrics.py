"""The metrics of drift, in Prometheus's format; only of the versions that acted last."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serve.observing.drift_kpis import KpiFinding
from serve.observing.drift_state import DriftReport

_VERSION = ("model_version",)


def drift_metrics(
    reports: Iterable[DriftReport], lost_requests: int, unwatched_cars: int
) -> Iterator[Metric]:
    """Yields every family; a version without a reference is only in `rlcar_drift_watched`.

    Alerts follow from the gauges of 0 and 1, which leave out a version that drives no longer.
    """
    reports = tuple(reports)
    watched = [report for report in reports if report.problem is None]
    driving = {str(report.version): report for report in watched if not report.is_silent}
    yield _gauge(
        "watched",
        "1 if drift of the version is watched, 0 if it has no usable reference.",
        {str(report.version): float(report.problem is None) for report in reports},
    )
    yield _gauge(
        "detected",
        "1 while the driving of a version differs from that of its evaluation, else 0; absent "
        "for a version that has driven no lap for ten minutes.",
        {version: float(report.is_drift) for version, report in driving.items()},
    )
    score = GaugeMetricFamily(
        "rlcar_drift_score",
        "Statistic of the newest window of laps, as a share of its threshold: from 1 on it is "
        "drift. By test: psi, ks or energy.",
        labels=("model_version", "test"),
    )
    for report in watched:
        for finding in () if report.window is None else report.window.findings:
            value = finding.value / finding.threshold
            score.add_metric((str(report.version), finding.test), value)
    yield score
    for name, help_text, kpi in (
        ("reward", "Mean reward of the newest reported laps", "reward"),
        ("success", "Share of successes in the newest reported laps", "success"),
    ):
        findings: dict[str, KpiFinding] = {
            str(report.version): finding
            for report in watched
            if (finding := getattr(report, kpi)) is not None
        }
        yield _gauge(
            f"{name}_ratio",
            f"{help_text}, relative to the evaluation; absent for too few laps.",
            {version: 1.0 - finding.shortfall for version, finding in findings.items()},
        )
        yield _gauge(
            f"{name}_low",
            f"1 while the {name} of the newest reported laps is too low, else 0; absent for too "
            "few laps, and for a version that has driven no lap for ten minutes.",
            {
                version: float(finding.is_low)
                for version, finding in findings.items()
                if version in driving
            },
        )
    for name, help_text in (
        ("laps", "Laps that were compared with the evaluation of their version."),
        ("alarms", "Times that drift was found."),
    ):
        counter = CounterMetricFamily(f"rlcar_drift_{name}", help_text, labels=_VERSION)
        for report in watched:
            counter.add_metric((str(report.version),), getattr(report, name))
        yield counter
    yield CounterMetricFamily(
        "rlcar_drift_lost_requests",
        "Requests that were not compared because too many were waiting.",
        value=lost_requests,
    )
    yield CounterMetricFamily(
        "rlcar_drift_unwatched_cars",
        "Cars of sessions that are not watched because too many were when they began.",
        value=unwatched_cars,
    )


def _gauge(name: str, help_text: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"rlcar_drift_{name}", help_text, labels=_VERSION)
    for version, value in values.items():
        family.add_metric((version,), value)
    return family
