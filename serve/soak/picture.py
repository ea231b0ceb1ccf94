"""The picture of a soak: what it used and did over time."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlcar.system.durable import replacing
from serve.soak.verdict import Sample, settled, trends

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(path: Path, samples: Sequence[Sample], title: str) -> None:
    """Draws memory, files, threads, disk, rates and latencies over minutes; the warm-up is grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.02, ha="left", weight="bold")
    memory, files, disk, rates, requests, latency = figure.subplots(3, 2, sharex=True).flat
    minutes = [sample.second / 60.0 for sample in samples]

    def line(axes: "Axes", label: str, value: Callable[[Sample], float | None]) -> None:
        values = [np.nan if (seen := value(sample)) is None else seen for sample in samples]
        axes.plot(minutes, values, linewidth=1.2, label=label)

    line(memory, "all", lambda sample: sample.total("memory_mb"))
    for name in samples[0].groups if samples else ():
        line(memory, name, partial(_memory_mb, name))
    line(files, "open files", lambda sample: sample.total("files"))
    line(files, "threads", lambda sample: sample.total("threads"))
    line(files, "processes", lambda sample: sample.total("processes"))
    for name in samples[0].disk_mb if samples else ():
        line(disk, name, partial(_disk_mb, name))
    line(rates, "env steps/s", lambda sample: sample.env_steps_per_s)
    line(rates, "train steps/s", lambda sample: sample.train_steps_per_s)
    line(requests, "answers/s", lambda sample: sample.heard.answers / sample.heard.seconds)
    line(
        requests, "frames of the page/s", lambda sample: sample.heard.frames / sample.heard.seconds
    )
    line(latency, "p50", lambda sample: sample.heard.p50_ms)
    line(latency, "p99", lambda sample: sample.heard.p99_ms)
    names = ("memory [MB]", "number", "disk [MB]", "training", "serving", "latency [ms]")
    for axes, name in zip((memory, files, disk, rates, requests, latency), names, strict=True):
        axes.set(ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="best")
    for axes in (rates, latency):
        axes.set_yscale("log")
    for axes in (memory, files, disk, requests):
        axes.set_ylim(bottom=0)
    after = settled(samples)
    if after:
        for axes in figure.axes:
            axes.axvspan(0.0, after[0].second / 60.0, color="#eeeeee", zorder=0)
        if (fitted := trends(samples)["rss_mb"]) is not None:
            ends = [after[0].second / 60.0, after[-1].second / 60.0]
            memory.plot(ends, [fitted.at_start, fitted.at_end], "k--", linewidth=1.0)
    for axes in (requests, latency):
        axes.set_xlabel("minutes")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _memory_mb(group: str, sample: Sample) -> float:
    return sample.groups[group].memory_mb


def _disk_mb(folder: str, sample: Sample) -> float:
    return sample.disk_mb[folder]
