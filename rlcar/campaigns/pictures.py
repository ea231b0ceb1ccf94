"""Draws a campaign: which job was in which slot, how far each job is, and when all will end."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from rlcar.campaigns.snapshot import JobView, Snapshot
from rlcar.evaluation.pictures import save_figure

_INK, _GOOD, _BAD, _BUSY, _REST = "#24292f", "#2f8f4e", "#d1242f", "#2563a8", "#dfe3e8"
_HOW = {"done": _GOOD, "failed": _BAD, "stopped": "#aab2bb", "": _BUSY}
_BARS = {"done": _GOOD, "failed": _BAD}
_LABEL_SHARE = 0.05  # of the width: a narrower bar has no room for its name
_SECONDS_PER_DAY = 86_400.0
_MOST_ROWS = 60  # of slots, and of jobs: Matplotlib cannot draw a picture of any height
# Jobs of these states are shown rather than others where not all have room.
_RANKS = ("running", "stopping", "failed", "pausing", "waiting", "done")


def draw_campaign(path: Path, snapshot: Snapshot) -> None:
    """Draws the slots above, the progress of the jobs below."""
    # A slot that no job has used yet needs no row.
    slots = min(_MOST_ROWS, max([1, *(span.slot + 1 for span in snapshot.spans)]))
    jobs = _shown(snapshot.jobs)
    heights = (1.2 + 0.35 * slots, 0.6 + 0.24 * len(jobs))
    figure = Figure(figsize=(9.0, sum(heights)), dpi=110, layout="constrained", facecolor="white")
    above, below = figure.subplots(2, height_ratios=heights)
    _draw_slots(above, snapshot, slots)
    _draw_progress(below, jobs, len(snapshot.jobs))
    for axes in (above, below):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_slots(axes: Axes, snapshot: Snapshot, slots: int) -> None:
    now = snapshot.at_unix_s
    end_s = now + (snapshot.eta.high_s if snapshot.eta else 0.0)
    width_s = max(end_s - snapshot.began_unix_s, 1.0)
    for slot in range(slots):
        spans = [span for span in snapshot.spans if span.slot == slot]
        starts = [_date(span.from_unix_s) for span in spans]
        lengths = [span.seconds(now) for span in spans]
        axes.broken_barh(
            [(start, s / _SECONDS_PER_DAY) for start, s in zip(starts, lengths, strict=True)],
            (slot - 0.35, 0.7),
            facecolors=[_HOW[span.how] for span in spans],
            alpha=0.85,
        )
        for span, start, length_s in zip(spans, starts, lengths, strict=True):
            if length_s / width_s > _LABEL_SHARE:
                axes.text(
                    start + length_s / _SECONDS_PER_DAY / 2, slot, span.job,
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


def _shown(jobs: Sequence[JobView]) -> list[JobView]:
    """Returns the jobs that have room, in their order."""
    by_rank = sorted(range(len(jobs)), key=lambda index: _RANKS.index(jobs[index].state))
    return [jobs[index] for index in sorted(by_rank[:_MOST_ROWS])]


def _draw_progress(axes: Axes, jobs: Sequence[JobView], number: int) -> None:
    names = [job.name for job in jobs]
    shares = [100.0 * job.done / job.total if job.total else 0.0 for job in jobs]
    axes.barh(names, [100.0] * len(names), color=_REST, height=0.6)
    colours = [_BARS.get(job.state, _BUSY) for job in jobs]
    axes.barh(names, shares, color=colours, height=0.6)
    axes.set(xlim=(0.0, 100.0), xlabel="completed work [%]", ylim=(len(names) - 0.4, -0.6))
    title = "Progress by job"
    title += f" ({len(jobs)} of {number}, those that run first)" if len(jobs) < number else ""
    axes.set_title(title, fontsize=8, loc="left")


def _date(unix_s: float) -> float:
    return float(date2num(datetime.datetime.fromtimestamp(unix_s)))
