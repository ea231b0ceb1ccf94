"""Writes tracks as CSV files in the layout that `rlcar.track.own.csv_file` reads.

Coordinates and widths are exact multiples of the simulator's units, and the file holds all digits.
Read again with as many points, it gives the same road: centre line and edges are equal if half the
width is a multiple of 1/256 px, as in all named worlds, and otherwise within 1/32 px. The first row
is the start line, and the rows follow in driving order. Obstacles are no part of a file.
"""

from pathlib import Path

import numpy as np

from rlcar.system import durable
from rlcar.track import grid
from rlcar.track.track import Track

_HEADER = "# x_px,y_px,w_tr_right_px,w_tr_left_px"
_DIGITS = 8  # of 1/256 px, which are exact


def file_name(track: Track) -> str:
    """Returns the name of a track's file: its own name, or one with its seed."""
    return f"{track.name or f'track-{track.seed}'}.csv"


def write_csv(path: Path, track: Track) -> None:
    """Writes one track; the file is complete or absent."""
    points = len(track.centre_px)
    half_width_px = np.full(points, track.half_width_px)
    if track.half_widths_px is not None:
        half_width_px = track.half_widths_px
    y_px = grid.WORLD_HEIGHT_PX - track.centre_px[:, 1]  # up, as in every file
    rows = np.stack([track.centre_px[:, 0], y_px, half_width_px, half_width_px], axis=1)
    lines = [",".join(_exact(value) for value in row) for row in rows.tolist()]
    with durable.replacing(path) as temporary:
        temporary.write_text("\n".join([_HEADER, *lines]) + "\n")


def _exact(value: float) -> str:
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".")
