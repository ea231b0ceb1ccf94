"""Draws a campaign: which job was in which slot, how far each job is, and when all will end."""

import datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from rlcar.campaigns.snapshot import Snapshot
from rlcar.evaluation.pictures import save_figure

_INK, _GOOD, _BAD, _BUSY, _REST = "#24292f", "#2f8f4e", "#d1242f", "#2563a8", "#dfe3e8"
_HOW = {"done": _GOOD, "failed": _BAD, "stopped": "#aab2bb", "": _BUSY}
_BARS = {"done": _GOOD, "failed": _BAD}
_LABEL_SHARE = 0.05  # of the width: a narrower bar has no room for its name


def draw_campaign(path: Path, snapshot: Snapshot) -> None:
    """Draws the slots above, the progress of the jobs below."""
    slots = max([snapshot.slots, *(span.slot + 1 for span in snapshot.spans)])
    heights = (1.2 + 0.35 * slots, 0.6 + 0.24 * len(snapshot.jobs))
    figure = Figure(figsize=(9.0, sum(heights)), dpi=110, layout="constrained", facecolor="white")
    above, below = figure.subplots(2, height_ratios=heights)
    _draw_slots(above, snapshot, slots)
    _draw_progress(below, snapshot)
    for axes in (above, below):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_slots(axes: Axes, snapshot: Snapshot, slots: int) -> None:
    now = snapshot.at_unix_s
    end_s = now + (snapshot.eta.high_s if snapshot.eta else 0.0)
    width_s = max(end_s - snapshot.began_unix_s, 1.0)
    for span in snapshot.spans:
        until_s = now if span.until_unix_s is None else span.until_unix_s
        left, right = _date(span.from_unix_s), _date(until_s)
        axes.barh(span.slot, right - left, left=left, height=0.7, color=_HOW[span.how], alpha=0.85)
        if (until_s - span.from_unix_s) / width_s > _LABEL_SHARE:
            axes.text(
                (left + right) / 2, span.slot, span.job,
                ha="center", va="center", fontsize=6, color="white", clip_on=True,
            )  # fmt: skip
    if snapshot.eta is not None:
        eta = snapshot.eta
        axes.axvspan(_date(now + eta.low_s), _date(now + eta.high_s), color=_BUSY, alpha=0.15)
        axes.axvline(_date(now + eta.likely_s), color=_BUSY, linewidth=1.5)
    axes.axvline(_date(now), color=_INK, linewidth=1.0, linestyle="dotted")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(
        xlim=(_date(snapshot.began_unix_s), _date(snapshot.began_unix_s + 1.02 * width_s)),
        ylim=(slots - 0.4, -0.6), yticks=range(slots), ylabel="slot",
    )  # fmt: skip
    axes.set_title(
        "Jobs by slot: done (green), failed (red), stopped (grey), running (blue); "
        "band: 90 % interval of the end",
        fontsize=8,
        loc="left",
    )


def _draw_progress(axes: Axes, snapshot: Snapshot) -> None:
    names = [job.name for job in snapshot.jobs]
    shares = [100.0 * job.done / job.total if job.total else 0.0 for job in snapshot.jobs]
    axes.barh(names, [100.0] * len(names), color=_REST, height=0.6)
    colours = [_BARS.get(job.state, _BUSY) for job in snapshot.jobs]
    axes.barh(names, shares, color=colours, height=0.6)
    axes.set(xlim=(0.0, 100.0), xlabel="completed work [%]", ylim=(len(names) - 0.4, -0.6))
    axes.set_title("Progress by job", fontsize=8, loc="left")


def _date(unix_s: float) -> float:
    return float(date2num(datetime.datetime.fromtimestamp(unix_s)))
