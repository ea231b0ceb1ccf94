"""The picture of a soak: what it used and did over time."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlcar.system.durable import replacing
from serve.soak.sample import Sample
from serve.soak.verdict import RATES, settled, trends

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(path: Path, samples: Sequence[Sample], title: str) -> None:
    """Draws memory, files, threads, disk, rates and latencies over minutes; the warm-up is grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.02, ha="left", weight="bold")
    memory, files, disk, training, requests, latency = figure.subplots(3, 2, sharex=True).flat
    minutes = [sample.second / 60.0 for sample in samples]

    def line(axes: "Axes", label: str, value: Callable[[Sample], float | None]) -> None:
        plot(axes, label, map(value, samples))

    def plot(axes: "Axes", label: str, values: Iterable[float | None]) -> None:
        numbers = [np.nan if value is None else value for value in values]
        axes.plot(minutes, numbers, linewidth=1.2, label=label)

    line(memory, "all", lambda sample: sample.total("memory_mb"))
    for name in samples[0].groups if samples else ():
        line(memory, name, partial(_memory_mb, name))
    line(files, "open files", lambda sample: sample.total("files"))
    line(files, "threads", lambda sample: sample.total("threads"))
    line(files, "processes", lambda sample: sample.total("processes"))
    for name in samples[0].disk_mb if samples else ():
        line(disk, name, partial(_disk_mb, name))
    for name, rates_of in RATES.items():
        axes, label = (requests if name == "answers" else training), name.replace("_", " ")
        found = rates_of(samples)
        plot(axes, f"{label}/s", (rate and rate.per_s for rate in found))
        plot(axes, f"{label}/CPU-second", (rate and rate.per_cpu_s for rate in found))
    line(requests, "frames/s", lambda sample: sample.heard.frames / sample.heard.seconds)
    line(latency, "p50", lambda sample: sample.heard.p50_ms)
    line(latency, "p99", lambda sample: sample.heard.p99_ms)
    names = ("memory [MB]", "number", "disk [MB]", "training", "serving", "latency [ms]")
    for axes, name in zip((memory, files, disk, training, requests, latency), names, strict=True):
        axes.set(ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="best")
    for axes in (training, latency):
        axes.set_yscale("log")
    for axes in (memory, files, disk, requests):
        axes.set_ylim(bottom=0)
    _mark_warm_up(figure.axes, memory, samples)
    for axes in (requests, latency):
        axes.set_xlabel("minutes")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _mark_warm_up(panels: Sequence["Axes"], memory: "Axes", samples: Sequence[Sample]) -> None:
    """Shades the warm-up in every panel, and draws the memory's line after it."""
    if not (after := settled(samples)):
        return
    start, end = after[0].second / 60.0, after[-1].second / 60.0
    for axes in panels:
        axes.axvspan(0.0, start, color="#eeeeee", zorder=0)
    if (fitted := trends(samples)["rss_mb"]) is not None:
        memory.plot([start, end], [fitted.at_start, fitted.at_end], "k--", linewidth=1.0)


def _memory_mb(group: str, sample: Sample) -> float:
    return sample.groups[group].memory_mb


def _disk_mb(folder: str, sample: Sample) -> float:
    return sample.disk_mb[folder]
