"""The second car: where it is at each step of a lap that it drives whatever anybody else does.

A line is a table of positions, so a scripted rival and one that some policy drove are the same to
the race, and cost it one gather.
"""

import numpy as np

from rlcar.errors import ConfigError
from rlcar.track import TrackPool, grid

_SIDE = 0.35  # of the half-width: the scripted rival keeps to the outside, so the inside is free


def scripted_lines(pool: TrackPool, pace_px_per_step: float) -> list[np.ndarray]:
    """Returns for each track `[T, 2]` x, y (up) in 1/32 px: one lap at an even pace.

    Only + - * / and sqrt touch the data: the same bits on every machine.
    """
    lines = []
    for road in pool.edges[:, pool.padding : pool.padding + pool.points]:
        x, y = grid.unpack_x(road) * 1.0, grid.unpack_y(road) * 1.0  # [P, inner and outer]
        outside = 0.5 + 0.5 * _SIDE
        line = np.stack(
            [x[:, 0] + outside * (x[:, 1] - x[:, 0]), y[:, 0] + outside * (y[:, 1] - y[:, 0])],
            axis=1,
        )
        line = np.concatenate([line, line[:1]])
        hop = np.diff(line, axis=0)
        driven = np.concatenate([[0.0], np.cumsum(np.sqrt((hop * hop).sum(axis=1)))])
        steps = max(1, int(driven[-1] / (pace_px_per_step * grid.UNITS_PER_PX)))
        at = np.arange(steps) * (driven[-1] / steps)
        lines.append(np.stack([np.interp(at, driven, line[:, i]) for i in range(2)], axis=1))
    return lines


def pack_lines(lines: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns packed positions, one track after the other, and where each begins, `[M + 1]`.

    Raises ConfigError for a line that is empty, not finite or outside the world.
    """
    for index, line in enumerate(lines):
        if (
            not 0 < len(line) < 1 << 16
            or not np.isfinite(line).all()
            or np.abs(line).max() > 32_000
        ):
            raise ConfigError(
                f"the rival's line on track {index} is empty, not finite or outside the world: "
                "give [steps, 2] positions x, y (up) in 1/32 px"
            )
    start = np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int32)
    every = np.rint(np.concatenate(lines))
    return grid.pack(every[:, 0], every[:, 1]), start
