"""Finds where closed lines cross themselves or each other."""

import numpy as np

_ROWS = 256  # segments that are compared with all others at a time


def first_crossing(one: np.ndarray, other: np.ndarray, *, is_same: bool) -> tuple[int, int] | None:
    """Returns the segments (i of `one`, j of `other`) that cross, or None.

    Both are closed lines, `[N, 2]` and `[K, 2]`; segment i leads from point i to the next one. With
    `is_same` they are one line, of which neighbouring segments meet without a crossing. Segments
    that only touch count as crossing.
    """
    start, end = other, np.roll(other, -1, axis=0)
    for first in range(0, len(one), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(one)))
        a, b = one[rows][:, None], one[(rows + 1) % len(one)][:, None]
        crosses = _is_between(a, b, start[None], end[None])
        crosses &= _side(a, b, start[None]) * _side(a, b, end[None]) <= 0
        crosses &= _side(start[None], end[None], a) * _side(start[None], end[None], b) <= 0
        if is_same:
            gap = (np.arange(len(other))[None] - rows[:, None]) % len(other)
            crosses &= (gap > 1) & (gap < len(other) - 1)
        if crosses.any():
            row, column = np.argwhere(crosses)[0]
            return int(rows[row]), int(column)
    return None


def _side(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Returns a number that is above 0 for points on the left of the line from a to b."""
    along, to = b - a, point - a
    cross = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return np.sign(cross)


def _is_between(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Returns whether the boxes around the segments a to b and c to d overlap."""
    low, high = (
        np.maximum(np.minimum(a, b), np.minimum(c, d)),
        np.minimum(np.maximum(a, b), np.maximum(c, d)),
    )
    return (low <= high).all(axis=-1)
