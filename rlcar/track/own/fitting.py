"""Scales a centre line to the world and resamples it to the points of a track."""

import re
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from rlcar.config.own_track import WIDEST_HALF_WIDTH_PX, OwnTrack
from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import grid
from rlcar.track.own.crossing import first_crossing
from rlcar.track.own.csv_file import CentreLine
from rlcar.track.own.soundness import Problem, make_road

_BORDER_PX = 8.0  # between the road and the border of the world, after scaling
_LONGEST_GAP = 2.0  # from the last point to the first, in the longest gap between other neighbours
_COMPARED_POINTS = 1500  # most points whose line is searched for crossings
_FINE_POINTS = 16_384  # points along the spline, for its length
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
_LONGEST_NAME = 60


class Scale(NamedTuple):
    """How a file becomes a track; None leaves the choice to the file."""

    px_per_unit: float | None = None  # None fits a file in metres into the world
    road_width_px: float | None = None  # None keeps the widths of the file


def fit_line(line: CentreLine, config: TrackConfig, scale: Scale) -> OwnTrack:
    """Returns a centre line as an own track with `config.points` points.

    A file in px keeps its place; a file in m is scaled to fill the world, or by `px_per_unit`, and
    moved to its middle. The first row of the file is the start line, and the rows follow in driving
    order. The line moves to the middle of the road where the widths to both sides differ. A file in
    px with exactly `config.points` rows that can be driven is kept as it is; every other line is
    resampled at equal distances along a cubic spline through its points.

    Raises ConfigError for a file without a unit, an open line, a line that crosses itself, and a
    road that cannot be driven, each with the lines of the file.
    """
    _require_closed(line)
    _require_simple(line)
    point, half_width = _in_px(line, scale)
    if line.unit == "px" and scale.px_per_unit is None and len(point) == config.points:
        kept = np.rint(point * grid.UNITS_PER_PX), _rounded(half_width)
        if not isinstance(make_road(*kept), Problem):
            return _own_track(line, *kept)
    place = _even_places(point, config.points)
    centre = np.rint(place.at(point) * grid.UNITS_PER_PX)
    half_width = _rounded(place.between(half_width))
    road = make_road(centre, half_width)
    if isinstance(road, Problem):
        nearest = [int(place.nearest[gate]) for gate in road.gates]
        raise ConfigError(f"{line.at(*nearest)}: {road.reason}")
    return _own_track(line, centre, half_width)


class _Places:
    """Places at equal distances along the closed cubic spline through some points."""

    def __init__(self, knot: np.ndarray, parameter: np.ndarray):
        self._knot, self._parameter = knot, parameter
        following = np.searchsorted(knot, parameter, side="right")
        before = np.clip(following - 1, 0, len(knot) - 2)
        is_later = parameter - knot[before] > knot[before + 1] - parameter
        self.nearest = (before + is_later) % (len(knot) - 1)  # the nearest point of each place

    def at(self, point: np.ndarray) -> np.ndarray:
        """Returns the spline through `point` `[N, 2]` at the places."""
        spline = CubicSpline(self._knot, np.concatenate([point, point[:1]]), bc_type="periodic")
        place: np.ndarray = spline(self._parameter)
        return place

    def between(self, value: np.ndarray) -> np.ndarray:
        """Returns values `[N]` of the points at the places, by linear interpolation."""
        return np.interp(self._parameter, self._knot, np.concatenate([value, value[:1]]))


def _even_places(point: np.ndarray, number: int) -> _Places:
    """Returns `number` places at equal distances along the line, the first at the first point."""
    hop = np.roll(point, -1, axis=0) - point
    knot = np.concatenate([[0.0], np.cumsum(np.sqrt((hop * hop).sum(axis=1)))])
    parameter = np.linspace(0.0, knot[-1], max(_FINE_POINTS, 4 * len(point)) + 1)
    step = np.diff(_Places(knot, parameter).at(point), axis=0)
    distance = np.concatenate([[0.0], np.cumsum(np.sqrt((step * step).sum(axis=1)))])
    wanted = np.arange(number) * (distance[-1] / number)
    return _Places(knot, np.interp(wanted, distance, parameter))


def _require_closed(line: CentreLine) -> None:
    point = np.stack([line.x, line.y], axis=1)
    hop = np.roll(point, -1, axis=0) - point
    gap = np.sqrt((hop * hop).sum(axis=1))
    if gap[-1] > _LONGEST_GAP * gap[:-1].max():
        raise ConfigError(
            f"{line.at(0, len(point) - 1)}: the line is open, because its end is {gap[-1]:.4g} "
            f"from its start, and its points are at most {gap[:-1].max():.4g} apart: a track is a "
            "closed line, whose last point comes shortly before the first one"
        )


def _require_simple(line: CentreLine) -> None:
    every = -(-len(line.x) // _COMPARED_POINTS)
    point = np.stack([line.x, line.y], axis=1)[::every]
    pair = first_crossing(point, point, is_same=True)
    if pair is not None:
        raise ConfigError(
            f"{line.at(pair[0] * every, pair[1] * every)}: the line crosses itself: a track is a "
            "loop without crossings or bridges"
        )


def _in_px(line: CentreLine, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Returns the middle of the road `[N, 2]` and half its width `[N]`, in px; y points up."""
    point = np.stack([line.x, line.y], axis=1)
    half_width = (line.right + line.left) / 2
    if scale.road_width_px is None:
        point = point + ((line.left - line.right) / 2)[:, None] * _to_left(point)
    px_per_unit = scale.px_per_unit
    if px_per_unit is None and line.unit is None:
        raise ConfigError(
            f"{line.path}: its first line names no unit: write x_m,y_m,w_tr_right_m,w_tr_left_m "
            "there, or the same with _px, or give --track-scale, the number of px of one unit"
        )
    if px_per_unit is None and line.unit == "px":
        return point, _half_width_px(half_width, 1.0, scale)
    if px_per_unit is None:
        px_per_unit = _filling(point, half_width, scale)
    if not _SMALLEST_SCALE <= px_per_unit <= _LARGEST_SCALE:
        raise ConfigError(
            f"{line.path}: the line is {np.ptp(point, axis=0).max():.4g} {line.unit} long, so that "
            f"one {line.unit} would be {px_per_unit:.3g} px: give its size in metres"
        )
    middle = (point.min(axis=0) + point.max(axis=0)) / 2
    world_middle = np.array([grid.CENTRE_X_PX, grid.CENTRE_Y_PX])
    point = world_middle + (point - middle) * px_per_unit
    return point, _half_width_px(half_width, px_per_unit, scale)


def _half_width_px(half_width: np.ndarray, px_per_unit: float, scale: Scale) -> np.ndarray:
    if scale.road_width_px is None:
        return half_width * px_per_unit
    return np.full(len(half_width), scale.road_width_px / 2)


def _filling(point: np.ndarray, half_width: np.ndarray, scale: Scale) -> float:
    """Returns the largest scale at which the road fits into the world and is not too wide."""
    world = np.array([grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX]) - 2 * _BORDER_PX
    if scale.road_width_px is not None:
        return float(((world - scale.road_width_px) / np.ptp(point, axis=0)).min())
    size = np.ptp(point, axis=0) + 2 * half_width.max()
    return float(min((world / size).min(), WIDEST_HALF_WIDTH_PX / half_width.max()))


def _to_left(point: np.ndarray) -> np.ndarray:
    """Returns unit vectors to the left of a closed line, `[N, 2]`."""
    ahead = np.roll(point, -1, axis=0) - np.roll(point, 1, axis=0)
    length = np.maximum(np.sqrt((ahead * ahead).sum(axis=1)), np.finfo(float).tiny)
    return np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / length[:, None]


def _rounded(half_width_px: np.ndarray) -> np.ndarray:
    return np.rint(half_width_px * grid.REACH_UNITS_PER_PX) / grid.REACH_UNITS_PER_PX


def _own_track(line: CentreLine, centre: np.ndarray, half_width_px: np.ndarray) -> OwnTrack:
    width = np.rint(half_width_px * grid.REACH_UNITS_PER_PX)
    rows = np.concatenate([centre, width[:, None]], axis=1).astype(np.int64)
    name = re.sub(r"[^\w .()+-]", "_", line.path.stem)[:_LONGEST_NAME].strip() or "track"
    text = ";".join(",".join(str(number) for number in row) for row in rows.tolist())
    return OwnTrack(name=name, line=text)
