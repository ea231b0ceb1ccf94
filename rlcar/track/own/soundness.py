"""Checks whether a car can drive on a closed road and the sensors can measure it exactly.

Drawn tracks are star-shaped, which `rlcar.track.shape` uses. The checks here hold for every shape.
"""

from typing import NamedTuple

import numpy as np

from rlcar.config.own_track import NARROWEST_HALF_WIDTH_PX, WIDEST_HALF_WIDTH_PX
from rlcar.config.race import RANGE_PX
from rlcar.track import grid
from rlcar.track.own.crossing import first_crossing
from rlcar.track.shape import MAX_GATE_WINDOW, MIN_CELL_PX, cell_lengths_px, mitres

# The products of the simulator fit into int32 up to these lengths.
_LONGEST_CELL_PX, _LONGEST_EDGE_PX, _LONGEST_GATE_PX = 100.0, 250.0, 250.0
_SHORTEST_WINDOW = 2
_SHARPEST = -0.8  # cosine of the sharpest turn at one point, where a mitre is 3 times as long
_LONGEST_SHARE = 0.25  # of the lap, for one cell
_WIDTHS = f"{2 * NARROWEST_HALF_WIDTH_PX:g} to {2 * WIDEST_HALF_WIDTH_PX:g} px"


class Problem(NamedTuple):
    """Why a road cannot be driven, and the gates that show it."""

    reason: str
    gates: tuple[int, ...]


class Road(NamedTuple):
    """A closed road of P gates, each array in grid units (1/32 px)."""

    centre: np.ndarray  # [P, 2]
    mitre: np.ndarray  # [P, 2] from the centre to the left edge
    half_width_px: np.ndarray  # [P]
    window: int  # a ray that has crossed so many gates is out of range; 0 if there is none


def make_road(centre: np.ndarray, half_width_px: np.ndarray) -> Road | Problem:
    """Makes the edges of a road, or returns the first reason why it cannot be driven.

    `centre` is `[P, 2]` in grid units, and `half_width_px` is `[P]`.
    """
    problem = _misplaced(centre, half_width_px) or _too_sharp(centre)
    if problem is not None:
        return problem
    mitre = mitres(centre[None], half_width_px[None])[0]
    cells_px = cell_lengths_px(*(edge[None] for edge in (centre + mitre, centre - mitre)))[0]
    road = Road(centre, mitre, half_width_px, _window(cells_px))
    return _folded(road) or _overlapping(road) or road


def _misplaced(centre: np.ndarray, half_width_px: np.ndarray) -> Problem | None:
    width_px = 2 * half_width_px
    for gate in (int(width_px.argmin()), int(width_px.argmax())):
        if not NARROWEST_HALF_WIDTH_PX <= width_px[gate] / 2 <= WIDEST_HALF_WIDTH_PX:
            what = (
                "too narrow for the car"
                if gate == int(width_px.argmin())
                else "wider than the simulator allows"
            )
            return Problem(
                f"the road is {width_px[gate]:.1f} px wide, which is {what}: a road is {_WIDTHS} "
                "wide; give another --track-scale or --road-width",
                (gate,),
            )
    limit = np.array([grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX]) * grid.UNITS_PER_PX
    is_outside = ((centre < 0) | (centre > limit)).any(axis=1)
    if is_outside.any():
        gate = int(is_outside.argmax())
        x_px, y_px = centre[gate] / grid.UNITS_PER_PX
        return Problem(
            f"the road leaves the world of {grid.WORLD_WIDTH_PX} x {grid.WORLD_HEIGHT_PX} px at "
            f"({x_px:.0f}, {y_px:.0f}): give a smaller --track-scale, which also moves the track "
            "to the middle",
            (gate,),
        )
    return None


def _too_sharp(centre: np.ndarray) -> Problem | None:
    """Returns a problem where a bend has no bisector, or points lie on one another."""
    hops_px = _hops_px(centre)
    if hops_px.min() < MIN_CELL_PX:
        return _too_short(hops_px, int(hops_px.argmin()))
    ahead = (np.roll(centre, -1, axis=0) - centre) / (hops_px * grid.UNITS_PER_PX)[:, None]
    straightness = (ahead * np.roll(ahead, 1, axis=0)).sum(axis=1)
    if straightness.min() < _SHARPEST:
        return Problem(
            "the line turns back on itself: sort its points in driving order, or make the bend "
            "wider",
            (int(straightness.argmin()),),
        )
    return None


def _too_short(hops_px: np.ndarray, gate: int) -> Problem:
    return Problem(
        f"a lap of {hops_px.sum():.0f} px is too short for {len(hops_px)} points: give fewer with "
        "--set race.track.points, or a larger --track-scale",
        (gate,),
    )


def _folded(road: Road) -> Problem | None:
    inner, outer = road.centre + road.mitre, road.centre - road.mitre
    points = len(road.centre)
    hops_px = _hops_px(road.centre)
    cells_px = cell_lengths_px(inner[None], outer[None])[0]
    gate = int(cells_px.argmin())
    gates_px = 2 * np.sqrt((road.mitre * road.mitre).sum(axis=1)) / grid.UNITS_PER_PX
    if gates_px.max() > _LONGEST_GATE_PX:  # the mitre of a bend that is nearly a fold
        gate = int(gates_px.argmax())
    is_dense = hops_px.min() >= 2 * MIN_CELL_PX
    if gates_px.max() > _LONGEST_GATE_PX or (is_dense and cells_px[gate] < MIN_CELL_PX):
        return Problem(
            "the road folds over itself, because a bend is tighter than half the width of "
            f"{2 * road.half_width_px[gate]:.1f} px: make the bend wider, or the road narrower "
            "with --road-width",
            (gate,),
        )
    if cells_px[gate] < MIN_CELL_PX or not road.window:
        return _too_short(hops_px, gate)
    longest = int(hops_px.argmax())
    edges_px = max(_hops_px(inner).max(), _hops_px(outer).max())
    share = hops_px[longest] / hops_px.sum()
    if (
        hops_px[longest] > _LONGEST_CELL_PX
        or edges_px > _LONGEST_EDGE_PX
        or share >= _LONGEST_SHARE
    ):
        return Problem(
            f"two of its {points} points are {hops_px[longest]:.0f} px apart, which is too far: "
            "give more points with --set race.track.points",
            (longest,),
        )
    return None


def _overlapping(road: Road) -> Problem | None:
    points = len(road.centre)
    edges = (road.centre + road.mitre, road.centre - road.mitre)
    for one, other in ((0, 0), (1, 1), (0, 1)):
        pair = first_crossing(edges[one], edges[other], is_same=one == other)
        if pair is not None:
            return Problem(
                "the road overlaps another part of itself, because its edges cross: move the two "
                "parts apart, or make the road narrower with --road-width",
                (pair[0] % points, pair[1] % points),
            )
    return None


def _window(cells_px: np.ndarray) -> int:
    """Returns the least W such that any W - 1 cells are longer than a ray, or 0 without one."""
    if (cells_px <= 0).any():
        return 0
    for window in range(_SHORTEST_WINDOW, MAX_GATE_WINDOW + 1):
        index = np.arange(len(cells_px))[:, None] + np.arange(window - 1)[None]
        if cells_px[index % len(cells_px)].sum(axis=1).min() >= RANGE_PX:
            return window
    return 0


def _hops_px(line: np.ndarray) -> np.ndarray:
    step = np.roll(line, -1, axis=0) - line
    return np.sqrt((step * step).sum(axis=1)) / grid.UNITS_PER_PX
