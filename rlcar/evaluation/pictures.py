"""Draws pictures of laps and of learning into files, each of which is complete or absent."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import CircleCollection, LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rlcar.system import durable
from rlcar.track import Track

TOP_SPEED_PX_PER_STEP = 5.0  # of the classic car; every colour scale reaches at least this speed
_HEADING_SHARE = 0.11  # height of the heading above a track, as a share of the cell's width

_INK = "#24292f"
_MUTED = "#6e7781"
_ROAD = "#dfe3e8"
_ROAD_EDGE = "#aab2bb"
_CENTRE_LINE = "#ffffff"
_OBSTACLE = "#e8a33d"
_CRASH = "#d1242f"
_BLUE = "#2563a8"
_GREEN = "#2f8f4e"


class DrivenLaps(Protocol):
    """The part of `Laps` that pictures need; lines `[T, N]` are NaN after the end of an episode."""

    @property
    def lap_time_steps(self) -> np.ndarray: ...
    @property
    def is_crash(self) -> np.ndarray: ...
    @property
    def progress(self) -> np.ndarray: ...
    @property
    def steps(self) -> np.ndarray: ...
    @property
    def x_px(self) -> np.ndarray: ...
    @property
    def y_px(self) -> np.ndarray: ...
    @property
    def speed_px_per_step(self) -> np.ndarray: ...


def draw_laps(path: Path, tracks: Sequence[Track], laps: DrivenLaps, title: str) -> None:
    """Draws every lap as a small multiple, coloured by speed; a red cross is a crash."""
    columns = max(1, math.ceil(math.sqrt(len(tracks))))
    cell_inches = 1.35 if columns > 4 else 2.4
    _draw_sheet(path, tracks, laps, title, columns=columns, cell_inches=cell_inches)


def draw_best(path: Path, tracks: Sequence[Track], laps: DrivenLaps, title: str) -> None:
    """Draws in large the four laps that were quickest for the length of their road.

    Lapped tracks come before the rest, which are ranked by how far the car came.
    """
    is_lap = laps.lap_time_steps > 0
    length_px = np.array([track.length_px for track in tracks])
    pace = np.where(is_lap, laps.lap_time_steps / length_px, 10.0 - laps.progress)
    chosen = np.sort(np.argsort(pace, kind="stable")[:4])
    _draw_sheet(
        path,
        [tracks[index] for index in chosen],
        _Chosen(laps, chosen),
        title,
        columns=min(2, len(chosen)),
        cell_inches=4.2,
    )


def draw_learning_curve(path: Path, metrics_rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws lap rate, lap time and episode reward over env steps.

    Rows without a value are left out.
    """
    figure = Figure(figsize=(8.0, 7.4), dpi=150, layout="constrained", facecolor="white")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1.25, 1.0, 1.0])
    figure.suptitle("Learning to lap unseen tracks", x=0.02, ha="left", color=_INK, weight="bold")
    # Rows of training repeat the last evaluation. Where evaluations have rows of their own, only
    # these were measured at the env steps of the row.
    alone = [row for row in metrics_rows if "episode/reward" not in row]
    env_steps, lap_rate = _series(alone, "evaluation/lap_rate")
    if not len(lap_rate):
        env_steps, lap_rate = _series(metrics_rows, "evaluation/lap_rate")
    if not len(lap_rate) and any("evaluation/episode_reward" in row for row in metrics_rows):
        _draw_rewards(figure, metrics_rows)
        save_figure(figure, path)
        return
    top.axhline(90.0, color=_MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    top.annotate(
        "90 %", (1.0, 90.0), (4, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=8, color=_MUTED,
    )  # fmt: skip
    top.plot(env_steps, 100.0 * lap_rate, color=_BLUE, linewidth=1.8, marker="o", markersize=3.5)
    top.set(ylabel="tracks lapped [%]", ylim=(-4.0, 104.0), yticks=range(0, 101, 25))
    over_steps, over_bound = _series(alone, "evaluation/over_bound_pct")
    middle.plot(over_steps, over_bound, color=_BLUE, linewidth=1.8, marker="o", markersize=3.5)
    middle.set(ylabel="lap time over\nits bound [%]", ylim=(0.0, None))
    env_steps, reward = _series(metrics_rows, "episode/reward")
    bottom.plot(env_steps, reward, color=_GREEN, linewidth=1.2)
    bottom.set(ylabel="reward of an episode", xlabel="env steps")
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes, values in ((top, lap_rate), (middle, over_bound), (bottom, reward)):
        _plain(axes)
        if not len(values):
            axes.text(
                0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color=_MUTED
            )  # fmt: skip
    save_figure(figure, path)


def _draw_rewards(figure: Figure, metrics_rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the learning curve of an environment without tracks."""
    figure.clear()
    figure.suptitle("Reward of an episode", x=0.02, ha="left", color=_INK, weight="bold")
    axes = figure.subplots()
    names = {"evaluation/episode_reward": "evaluated", "episode/reward": "while exploring"}
    for (name, label), colour in zip(names.items(), (_BLUE, _GREEN), strict=True):
        axes.plot(*_series(metrics_rows, name), color=colour, linewidth=1.5, label=label)
    axes.set(xlabel="env steps")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.legend(frameon=False)
    _plain(axes)


class _Chosen:
    """A selection of the cars of a DrivenLaps."""

    def __init__(self, laps: DrivenLaps, index: np.ndarray) -> None:
        self.lap_time_steps = laps.lap_time_steps[index]
        self.is_crash = laps.is_crash[index]
        self.progress = laps.progress[index]
        self.steps = laps.steps[index]
        self.x_px = laps.x_px[:, index]
        self.y_px = laps.y_px[:, index]
        self.speed_px_per_step = laps.speed_px_per_step[:, index]


def _draw_sheet(
    path: Path,
    tracks: Sequence[Track],
    laps: DrivenLaps,
    title: str,
    *,
    columns: int,
    cell_inches: float,
) -> None:
    """Draws all tracks into one axes object, a cell each; an axes object each would be slow."""
    rows = max(1, math.ceil(len(tracks) / columns))
    size_px = 1.08 * max(float(np.ptp(track.borders_px[1], axis=0).max()) for track in tracks)
    cell_px = np.array([size_px, size_px * (1.0 + _HEADING_SHARE)])
    sheet_inches = cell_inches * np.array([columns, rows * (1.0 + _HEADING_SHARE)])
    head_inches, foot_inches, side_inches = 0.5, 0.7, 0.15
    width = sheet_inches[0] + 2 * side_inches
    height = sheet_inches[1] + head_inches + foot_inches
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    axes = figure.add_axes(
        (side_inches / width, foot_inches / height, *(sheet_inches / (width, height)))
    )
    axes.set(xlim=(0, columns * cell_px[0]), ylim=(rows * cell_px[1], 0))  # screen y points down
    axes.set_axis_off()
    scale = cell_inches * 72.0 / size_px  # points a pixel
    corners_px = [cell_px * (index % columns, index // columns) for index in range(len(tracks))]
    shifts_px = [
        corner_px + cell_px - size_px / 2 - _middle_px(track)
        for track, corner_px in zip(tracks, corners_px, strict=True)
    ]
    _draw_roads(axes, tracks, shifts_px, scale)
    lines = _draw_lines(axes, laps, shifts_px, scale)
    for index, (track, corner_px) in enumerate(zip(tracks, corners_px, strict=True)):
        _draw_heading(axes, corner_px, size_px, _result(track, laps, index), cell_inches)
    figure.text(
        side_inches / width, 1 - 0.14 / height, title, va="top",
        fontsize=13, weight="bold", color=_INK,
    )  # fmt: skip
    _draw_legend(figure, lines, laps)
    save_figure(figure, path)


def _draw_legend(figure: Figure, lines: LineCollection, laps: DrivenLaps) -> None:
    """Draws the bar of speeds and, where there are any, the marks of failures."""
    width, height = figure.get_size_inches()
    bar_axes = figure.add_axes((0.2 / width, 0.42 / height, min(0.45, 2.6 / width), 0.1 / height))
    bar = figure.colorbar(lines, cax=bar_axes, orientation="horizontal")
    bar.set_label("speed [px/step]", fontsize=8, color=_INK, labelpad=2)
    bar.ax.tick_params(labelsize=7, colors=_INK, length=2)
    bar.outline.set_visible(False)
    marks = ["× crash"] if laps.is_crash.any() else []
    marks += ["○ time out"] if _is_timeout(laps).any() else []
    figure.text(
        1 - 0.15 / width, 0.42 / height, "    ".join(marks), ha="right", fontsize=9, color=_CRASH
    )


def _draw_roads(
    axes: Axes, tracks: Sequence[Track], shifts_px: Sequence[np.ndarray], scale: float
) -> None:
    """Draws road, centre line, start line and obstacles of every cell."""
    borders = [track.borders_px for track in tracks]
    inner, outer = (
        [border[side] + shift for border, shift in zip(borders, shifts_px, strict=True)]
        for side in range(2)
    )
    centre = [track.centre_px + shift for track, shift in zip(tracks, shifts_px, strict=True)]
    edge: Any = {"edgecolors": _ROAD_EDGE, "linewidths": 2.0 * scale + 0.2}
    axes.add_collection(PolyCollection(outer, facecolors=_ROAD, zorder=1, **edge))
    axes.add_collection(PolyCollection(inner, facecolors="white", zorder=2, **edge))
    closed = [np.vstack([line, line[:1]]) for line in centre]
    axes.add_collection(
        LineCollection(
            closed, colors=_CENTRE_LINE, linewidths=3.0 * scale, linestyles=(0, (4, 4)), zorder=3
        )
    )
    starts = [
        np.stack(ends)
        for ends in zip((line[0] for line in inner), (line[0] for line in outer), strict=True)
    ]
    axes.add_collection(LineCollection(starts, colors=_INK, linewidths=5.0 * scale, zorder=4))
    for track, shift in zip(tracks, shifts_px, strict=True):
        if len(track.obstacles_px):
            area = math.pi * (track.obstacle_radius_px * scale) ** 2
            axes.add_collection(
                CircleCollection(
                    [area],
                    offsets=track.obstacles_px + shift,
                    offset_transform=axes.transData,
                    facecolors=_OBSTACLE,
                    zorder=4,
                )
            )


def _draw_lines(
    axes: Axes, laps: DrivenLaps, shifts_px: Sequence[np.ndarray], scale: float
) -> LineCollection:
    """Draws every car's line, coloured by its speed, and a mark where it failed."""
    pieces, speeds, ends = [], [], []
    for index, shift_px in enumerate(shifts_px):
        rows = int(laps.steps[index]) + 1
        line_px = np.stack([laps.x_px[:rows, index], laps.y_px[:rows, index]], axis=1) + shift_px
        pieces.append(np.stack([line_px[:-1], line_px[1:]], axis=1))
        speeds.append(laps.speed_px_per_step[1:rows, index])
        ends.append(line_px[-1])
    lines = LineCollection(
        list(np.concatenate(pieces)),
        array=np.concatenate(speeds),
        cmap="viridis",
        linewidths=6.0 * scale + 0.3,
        capstyle="round",
        zorder=5,
    )
    lines.set_clim(0.0, max(TOP_SPEED_PX_PER_STEP, float(np.concatenate(speeds).max(initial=0.0))))
    axes.add_collection(lines)
    end_px = np.stack(ends)
    size, width = (44.0 * scale) ** 2 + 12.0, 9.0 * scale + 0.8
    crash_px, timeout_px = end_px[laps.is_crash], end_px[_is_timeout(laps)]
    mark: Any = {"s": size, "zorder": 6}
    axes.scatter(crash_px[:, 0], crash_px[:, 1], marker="x", color=_CRASH, linewidths=width, **mark)
    axes.scatter(
        timeout_px[:, 0],
        timeout_px[:, 1],
        facecolors="none",
        edgecolors=_CRASH,
        linewidths=0.6 * width,
        **mark,
    )
    return lines


def _result(track: Track, laps: DrivenLaps, index: int) -> tuple[str, str, str]:
    """Returns a cell's name, result and the result's colour."""
    name = track.name or f"{track.seed}"
    if laps.lap_time_steps[index] > 0:
        return name, f"{laps.lap_time_steps[index]} steps", _INK
    mark = "×" if laps.is_crash[index] else "○"
    return name, f"{mark} {100 * laps.progress[index]:.0f} %", _CRASH


def _draw_heading(
    axes: Axes,
    corner_px: np.ndarray,
    size_px: float,
    result: tuple[str, str, str],
    cell_inches: float,
) -> None:
    """Writes a cell's name and result on the line above its track."""
    name, text, colour = result
    size = 6.5 if cell_inches < 2.0 else 3.5 + 2.0 * cell_inches
    x_px, y_px = corner_px + (0.05 * size_px, 0.8 * _HEADING_SHARE * size_px)
    axes.text(x_px, y_px, name, ha="left", va="baseline", fontsize=size, color=_MUTED)
    x_px = corner_px[0] + 0.95 * size_px
    axes.text(
        x_px, y_px, text, ha="right", va="baseline", fontsize=size, weight="bold", color=colour
    )


def _middle_px(track: Track) -> np.ndarray:
    outer_px = track.borders_px[1]
    return (outer_px.min(axis=0) + outer_px.max(axis=0)) / 2


def _is_timeout(laps: DrivenLaps) -> np.ndarray:
    return ~laps.is_crash & (laps.lap_time_steps == 0)


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns env steps and values of the rows that have a finite value under `key`."""
    points = [
        (float(row["env_steps"]), float(row[key]))
        for row in rows
        if isinstance(row.get("env_steps"), int | float) and isinstance(row.get(key), int | float)
    ]
    points = [point for point in points if math.isfinite(point[1])]
    env_steps, values = np.array(points).reshape(-1, 2).T
    return env_steps, values


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_ROAD_EDGE)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="y", color="#eceff2", linewidth=0.8)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.replacing(path) as temporary:
        figure.savefig(temporary, format="png")
