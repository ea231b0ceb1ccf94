"""Draws five closed roads of different shapes, as centre lines in metres for CSV files.

No drawn track of rlcar looks like them: none is a star around its middle or has long straights, and
two of them run clockwise. Lines are polygons whose corners are replaced by arcs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEADER = "# x_m,y_m,w_tr_right_m,w_tr_left_m"

# Corners in metres with the radius of the bend there, in driving order.
_CORNERS: dict[str, list[tuple[float, float, float]]] = {
    "oval": [(0, 0, 14), (120, 0, 14), (120, 60, 29), (0, 60, 29)],
    "ell": [(0, 0, 12), (110, 0, 12), (110, 35, 12), (45, 35, 14), (45, 80, 12), (0, 80, 12)],
    "hairpins": [(0, 0, 11), (120, 0, 11), (120, 28, 11), (50, 28, 11), (50, 56, 11)]
    + [(120, 56, 11), (120, 84, 11), (0, 84, 11)],
    "needle": [(0, 0, 10), (150, 0, 10), (150, 26, 10), (0, 26, 10)],
}
_CLOCKWISE = ("ell", "needle")
_STEP_M = 1.5


def centre_lines() -> dict[str, np.ndarray]:
    """Returns x, y, width to the right and width to the left of each track, `[N, 4]` metres."""
    lines = {name: _rounded(corners) for name, corners in _CORNERS.items()}
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 40 + 16 * np.cos(angle) + 11 * np.cos(2 * angle + 0.6)
    lines["bean"] = np.stack([1.3 * radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    tracks = {}
    for name, line in sorted(lines.items()):
        if name in _CLOCKWISE:
            line = np.concatenate([line[:1], line[:0:-1]])
        share = np.arange(len(line)) / len(line)
        half = 5.0 + 0.8 * np.sin(2 * np.pi * share)  # wider in the first half of a lap
        lean = 0.7 * np.cos(2 * np.pi * share)  # the line is not always in the middle of the road
        tracks[name] = np.stack([*line.T, half + lean, half - lean], axis=1)
    return tracks


def write(folder: Path, names: Sequence[str] = (), header: str = HEADER) -> Path:
    """Writes tracks, by default all of them, as CSV files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in centre_lines().items():
        if not names or name in names:
            text = "\n".join(",".join(f"{value:.3f}" for value in row) for row in rows)
            (folder / f"{name}.csv").write_text(f"{header}\n{text}\n")
    return folder


def _rounded(corners: list[tuple[float, float, float]]) -> np.ndarray:
    """Returns points at equal distances along a polygon with round corners, from a straight on."""
    point, radius = np.array(corners)[:, :2], np.array(corners)[:, 2]
    pieces = []
    for index in range(len(point)):
        before, here = point[index - 1], point[index]
        there = point[(index + 1) % len(point)]
        come = (here - before) / np.linalg.norm(here - before)
        go = (there - here) / np.linalg.norm(there - here)
        turn = np.arctan2(come[0] * go[1] - come[1] * go[0], come @ go)
        reach = radius[index] * np.tan(abs(turn) / 2)
        side = np.sign(turn) * np.array([-come[1], come[0]])
        middle = here - reach * come + radius[index] * side
        angles = np.linspace(0, turn, 24)
        arm = -radius[index] * side
        pieces.append(
            middle
            + np.stack(
                [
                    arm[0] * np.cos(angles) - arm[1] * np.sin(angles),
                    arm[0] * np.sin(angles) + arm[1] * np.cos(angles),
                ],
                axis=1,
            )
        )
    line = np.concatenate(pieces)
    # The start is in the middle of the first straight, from the first corner to the second.
    start = (pieces[0][-1] + pieces[1][0]) / 2
    line = np.concatenate([start[None], line[24:], line[:24], start[None]])
    distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0, distance[-1], int(distance[-1] / _STEP_M), endpoint=False)
    return np.stack([np.interp(wanted, distance, line[:, axis]) for axis in range(2)], axis=1)
