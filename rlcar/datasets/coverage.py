"""Where the data is thin: counts over speeds and bends, or over two chosen observations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rlcar.datasets.columns import Rows
from rlcar.datasets.dataset import Dataset
from rlcar.errors import DatasetError
from rlcar.settings.explain import nearest
from rlcar.system import durable

BINS = 24
THIN = 50  # fewer transitions in a cell are too few to learn from
_SPEED = "speed"


class Axis(NamedTuple):
    """One axis of the picture."""

    label: str
    low: float
    high: float
    values: Callable[[Rows], np.ndarray]  # -> [M]


class Coverage(NamedTuple):
    """Transitions by cell of two axes."""

    axes: tuple[Axis, Axis]
    counts: np.ndarray  # [BINS, BINS] int64; the first index is along the first axis
    outside: int  # transitions beyond the ranges of the axes

    @property
    def thin(self) -> np.ndarray:
        """Cells `[BINS, BINS]` bool that were visited, but by fewer than THIN transitions."""
        return thin_cells(self.counts)

    def figures(self) -> dict[str, Any]:
        """Returns the shares of cells and transitions as plain values."""
        transitions = int(self.counts.sum()) + self.outside
        return {
            "axes": [axis.label for axis in self.axes],
            "cells": self.counts.size,
            "visited_cells": int((self.counts > 0).sum()),
            "thin_cells": int(self.thin.sum()),
            "thin_below_transitions": THIN,
            "thin_transition_rate": float(self.counts[self.thin].sum() / max(1, transitions)),
            "outside_transitions": self.outside,
        }


def thin_cells(counts: np.ndarray) -> np.ndarray:
    """Returns which cells were visited, but by fewer than THIN transitions.

    Cells without transitions are left out, because most of them cannot be reached.
    """
    return (counts > 0) & (counts < THIN)


def measure(
    data: Dataset,
    names: tuple[str, str] | None = None,
    on_progress: Callable[[int], None] = lambda transitions: None,
) -> Coverage:
    """Counts transitions; by default over speed and bend of the race.

    `names` are two observations of the schema. Raises DatasetError for images, and for other worlds
    without names.
    """
    axes = _axes(data, names)
    counts = np.zeros((BINS, BINS), np.int64)
    done = inside = 0
    for index in range(len(data.parts)):
        rows = data.read_part(index)
        first, second = (axis.values(rows) for axis in axes)
        ranges = [(axis.low, axis.high) for axis in axes]
        found, _, _ = np.histogram2d(first, second, bins=BINS, range=ranges)
        counts += found.astype(np.int64)
        inside += int(found.sum())
        done += len(rows.reward)
        on_progress(done)
    return Coverage(axes, counts, done - inside)


def draw(path: Path, coverage: Coverage, title: str) -> None:
    """Draws the counts; thin cells have a red border, and cells without data are white."""
    figure = Figure(figsize=(7.5, 6.0), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots()
    first, second = coverage.axes
    counts = np.ma.masked_equal(coverage.counts, 0)
    image = axes.imshow(
        counts.T,
        origin="lower",
        aspect="auto",
        extent=(first.low, first.high, second.low, second.high),
        cmap="viridis",
        norm=LogNorm(vmin=1, vmax=max(2, int(coverage.counts.max()))),
        interpolation="nearest",
    )
    width, height = (first.high - first.low) / BINS, (second.high - second.low) / BINS
    for column, row in np.argwhere(coverage.thin):
        corner = (first.low + column * width, second.low + row * height)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#d1242f", lw=0.8))
    axes.set_xlabel(first.label)
    axes.set_ylabel(second.label)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    axes.set_title(f"red: fewer than {THIN} transitions; white: none", loc="left", fontsize=8)
    figure.colorbar(image, ax=axes, label="transitions")
    with durable.explaining_write_errors(path, DatasetError), durable.replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def bend_of(observation: np.ndarray) -> np.ndarray:
    """Returns the bend that the five rays of the race see, `[M]` in [-1, 1].

    It is the length of the two left rays minus that of the two right ones, over their sum: positive
    where the road turns to the left.
    """
    right, left = observation[:, 0] + observation[:, 1], observation[:, 3] + observation[:, 4]
    return (left - right) / np.maximum(left + right, 1e-6)


def _axes(data: Dataset, names: tuple[str, str] | None) -> tuple[Axis, Axis]:
    entries = data.description.observation
    if not entries:
        raise DatasetError(f"{data.folder} holds images, for which there is no coverage picture")
    known = [entry.name for entry in entries]
    if names is None:
        if data.world.race is None:
            raise DatasetError(
                f"{data.folder} is not of the race: name two of its observations, such as "
                f"--axes {','.join(known[:2])}"
            )
        speed = _observed(data, known.index(_SPEED))
        return speed, Axis(
            "bend: left rays against right rays", -1.0, 1.0, lambda rows: bend_of(rows.observation)
        )
    for name in names:
        if name not in known:
            raise DatasetError(f"there is no observation {name!r}{nearest(name, known)}")
    first, second = (_observed(data, known.index(name)) for name in names)
    return first, second


def _observed(data: Dataset, index: int) -> Axis:
    """Returns the axis of one observation: over its range, or four standard deviations."""
    entry, moments = data.description.observation[index], data.moments
    assert moments is not None
    mean, spread = moments.mean[index], 4.0 * max(moments.standard_deviation[index], 1e-6)
    low = mean - spread if entry.low is None else entry.low
    high = mean + spread if entry.high is None else entry.high
    label = entry.name + (f" ({entry.unit})" if entry.unit else "")
    return Axis(label, float(low), float(high), lambda rows: rows.observation[:, index])
