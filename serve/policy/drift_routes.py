"""`GET /v1/drift` shows the drift of the served versions, and `GET /v1/drift.svg` draws it."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.observing.drift import WINDOW_LAPS
from serve.observing.drift_kpis import KpiFinding
from serve.observing.drift_picture import drift_picture
from serve.observing.drift_state import DriftReport
from serve.policy.drift_watch import DriftWatch

_NO_STORE = {"cache-control": "no-store"}


def drift_routes(watch: DriftWatch) -> list[Route]:
    """Returns both routes."""
    drawn: dict[int, tuple[DriftReport, str]] = {}  # the last picture of each version

    async def show(request: Request) -> Response:
        reports = sorted(watch.reports.values(), key=lambda report: -report.version)
        return _answer({"versions": [described(report) for report in reports]})

    async def draw(request: Request) -> Response:
        text = request.query_params.get("version")
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 9):
            return _answer({"error": "`version` must be the number of a version"}, 422)
        reports = watch.reports
        number = next(reversed(reports), None) if text is None else int(text)
        report = None if number is None else reports.get(number)
        if report is None:
            return _answer({"error": "this server has not acted with that version lately"}, 404)
        if report.problem is not None:
            return _answer({"error": report.problem}, 404)
        for old in drawn.keys() - reports.keys():
            del drawn[old]
        last = drawn.get(report.version)
        if last is None or _is_newer(report, last[0]):
            drawn[report.version] = last = (report, drift_picture(report))
        return Response(last[1], headers=_NO_STORE, media_type="image/svg+xml")

    return [Route("/v1/drift", show), Route("/v1/drift.svg", draw)]


def _is_newer(report: DriftReport, drawn: DriftReport) -> bool:
    is_same_window = report.window is drawn.window and report.laps == drawn.laps
    return not is_same_window or report.is_drift != drawn.is_drift


def described(report: DriftReport) -> dict[str, Any]:
    """Returns a version's drift as JSON."""
    window = report.window
    findings = [] if window is None else window.findings
    return {
        "model_version": report.version,
        "watched": report.problem is None,
        "problem": report.problem,
        "drift": report.is_drift,
        "silent": report.is_silent,
        "since_unix_s": report.since_unix_s,
        "alarms": report.alarms,
        "laps": report.laps,
        "window_laps": WINDOW_LAPS,
        "reference_laps": report.reference_laps,
        "tests": [
            {
                "test": finding.test,
                "value": finding.value,
                "threshold": finding.threshold,
                "channel": None if finding.channel is None else report.channels[finding.channel],
                "drift": finding.is_drift,
            }
            for finding in findings
        ],
        "shifts": {}
        if window is None
        else dict(zip(report.channels, window.shift.tolist(), strict=True)),
        "reward": _kpi(report.reward),
        "success": _kpi(report.success),
    }


def _kpi(finding: KpiFinding | None) -> dict[str, Any] | None:
    return None if finding is None else finding._asdict()


def _answer(tree: dict[str, Any], status: int = 200) -> Response:
    body = msgspec.json.encode(tree)
    return Response(body, status, _NO_STORE, media_type="application/json")
