"""The rival: a second car that repeats a recorded lap and reacts to nobody.

A lap is a table of positions, one for each step. A scripted lap and a lap that a policy drove
therefore look the same to the race, which gathers one position a step.
"""

import numpy as np

from rlcar.errors import ConfigError
from rlcar.track import TrackPool, grid

_SIDE = 0.35  # of the half-width: the scripted rival drives outside and leaves the inside free
_FARTHEST = 32_000  # positions are packed in int16


def scripted_lines(pool: TrackPool, pace_px_per_step: float) -> list[np.ndarray]:
    """Returns one lap at constant speed for each track, `[T, 2]` x, y (up) in 1/32 px.

    It computes only with + - * / and sqrt, so that every machine gets the same bits.
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
        segment = np.diff(line, axis=0)
        length = np.sqrt((segment * segment).sum(axis=1))
        distance = np.concatenate([[0.0], np.cumsum(length)])  # from the start to each point
        steps = max(1, int(distance[-1] / (pace_px_per_step * grid.UNITS_PER_PX)))
        driven = np.arange(steps) * (distance[-1] / steps)
        lines.append(np.stack([np.interp(driven, distance, line[:, i]) for i in range(2)], axis=1))
    return lines


def pack_lines(lines: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the packed positions of all tracks in one array, and where each begins, `[M + 1]`.

    Raises ConfigError for a line that is empty, not finite or outside the world.
    """
    for index, line in enumerate(lines):
        if (
            not 0 < len(line) < 1 << 16
            or not np.isfinite(line).all()
            or np.abs(line).max() > _FARTHEST
        ):
            raise ConfigError(
                f"the rival's line on track {index} is empty, not finite or outside the world: "
                "give [steps, 2] positions x, y (up) in 1/32 px"
            )
    start = np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int32)
    positions = np.rint(np.concatenate(lines))
    return grid.pack(positions[:, 0], positions[:, 1]), start
