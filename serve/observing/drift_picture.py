"""Draws a window of laps beside the reference, as an SVG of a few kilobytes.

It is written as text, because a plotting library would hold up the answers of the server.
"""

from xml.sax.saxutils import escape

import numpy as np

from rlcar.evaluation.lap_reference import BINS
from serve.observing.drift import WINDOW_LAPS
from serve.observing.drift_state import DriftReport

_COLUMNS = 4
_WIDTH, _HEIGHT, _GAP, _TITLE = 200, 130, 16, 78  # in px: a panel, around it, above all
_AXIS, _TOP = 18, 20  # below and above the bars of a panel
_USUAL, _NOW, _FAR, _TEXT = "#9aa5b1", "#2563eb", "#dc2626", "#1f2933"


def drift_picture(report: DriftReport) -> str:
    """Returns a panel for each channel: the histogram of the evaluation and of the window.

    Raises AssertionError for a version whose drift is not watched.
    """
    assert report.expected is not None, report.version
    channels = len(report.channels)
    rows = -(-channels // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = _TITLE + rows * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="{_TEXT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_GAP, 24, _headline(report), 16),
        _text(_GAP, 44, _tests(report), 12),
        f'<rect x="{_GAP}" y="53" width="10" height="10" fill="{_USUAL}"/>',
        _text(_GAP + 16, 62, f"evaluation, {report.reference_laps} laps", 12),
        f'<rect x="{_GAP + 170}" y="53" width="10" height="10" fill="{_NOW}"/>',
        _text(_GAP + 186, 62, f"last {WINDOW_LAPS} laps (red: the channel that differs most)", 12),
    ]
    for channel in range(channels):
        left = _GAP + channel % _COLUMNS * (_WIDTH + _GAP)
        top = _TITLE + channel // _COLUMNS * (_HEIGHT + _GAP)
        parts += _panel(report, channel, left, top)
    return "\n".join([*parts, "</svg>", ""])


def _headline(report: DriftReport) -> str:
    if report.window is None:
        return f"Version {report.version}: {report.laps} of {WINDOW_LAPS} laps for a first window"
    state = "drift" if report.is_drift else "no drift"
    return f"Version {report.version}: {state} after {report.laps} laps"


def _tests(report: DriftReport) -> str:
    if report.window is None:
        return "Histograms of the evaluation alone"
    return ", ".join(
        f"{finding.test} {finding.value:.3g} (threshold {finding.threshold:.3g})"
        for finding in report.window.findings
    )


def _panel(report: DriftReport, channel: int, left: int, top: int) -> list[str]:
    """Returns the bars of one channel; each bin holds a tenth of the evaluation's steps or more."""
    assert report.expected is not None
    window = report.window
    bins = len(report.edges[channel]) + 1
    usual = report.expected[channel][:bins]
    now = None if window is None else window.share[channel][:bins]
    most = max(float(usual.max()), 0.0 if now is None else float(now.max()), 1.0 / BINS)
    step = _WIDTH / bins
    parts = [_text(left, top + 14, _name(report, channel), 12)]
    for index in range(bins):
        parts.append(_bar(left + index * step, top, step * 0.45, usual[index] / most, _USUAL))
        if now is not None:
            color = _FAR if _is_worst(report, channel) else _NOW
            x = left + (index + 0.45) * step
            parts.append(_bar(x, top, step * 0.45, now[index] / most, color))
    edges = report.edges[channel]
    parts.append(_text(left, top + _HEIGHT - 4, f"below {edges[0]:.3g}", 10))
    parts.append(_text(left + _WIDTH - 64, top + _HEIGHT - 4, f"from {edges[-1]:.3g}", 10))
    return parts


def _name(report: DriftReport, channel: int) -> str:
    name = report.channels[channel]
    if report.window is None:
        return name
    return f"{name}: {report.window.shift[channel]:+.1f} deviations"


def _is_worst(report: DriftReport, channel: int) -> bool:
    findings = () if report.window is None else report.window.findings
    return any(finding.is_drift and finding.channel == channel for finding in findings)


def _bar(x: float, top: int, width: float, share: float, color: str) -> str:
    height = float(np.clip(share, 0.0, 1.0)) * (_HEIGHT - _AXIS - _TOP)
    y = top + _HEIGHT - _AXIS - height
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
    )


def _text(x: int, y: int, text: str, size: int) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
