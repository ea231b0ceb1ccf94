"""Places circular obstacles inside the loop, or on the road with a gap beside each of them."""

import numpy as np

from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import grid
from rlcar.track.hashing import uniform
from rlcar.track.own.roads import obstacles_beside
from rlcar.track.shape import Shape, circle_table

INFIELD_MARGIN_PX = 2.0  # between an obstacle in the infield and the road
FIRST_ON_ROAD, LAST_ON_ROAD = 0.08, 0.97  # of the lap; the start stays free
DIRECTIONS = 1024  # possible directions of infield obstacles from the centre of the world
_STREAM = 1000  # first stream of the hash, beyond those of the noise


def place_obstacles(seeds: np.ndarray, shape: Shape, config: TrackConfig) -> np.ndarray:
    """Returns the packed centres of the obstacles of each track, `[M, obstacles]` int32."""
    if config.obstacle_placement == "road":
        x, y = _on_the_road(seeds, shape, config)
    elif config.own:
        x, y = obstacles_beside(seeds, config)
    else:
        x, y = _in_the_infield(seeds, shape, config)
    return grid.pack(np.rint(x), np.rint(y))


def _in_the_infield(
    seeds: np.ndarray, shape: Shape, config: TrackConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Places one obstacle in each sector of a disc that lies inside all inner edges."""
    count = config.obstacles
    middle = np.array([grid.CENTRE_X_PX, grid.CENTRE_Y_PX]) * float(grid.UNITS_PER_PX)
    corner = shape.centre + shape.mitre - middle
    along = np.roll(corner, -1, axis=1) - corner
    area = corner[..., 0] * along[..., 1] - corner[..., 1] * along[..., 0]
    length = np.sqrt(along[..., 0] ** 2 + along[..., 1] ** 2)
    free_px = (area / length).min(axis=1) / grid.UNITS_PER_PX
    free_px -= config.obstacle_radius_px + INFIELD_MARGIN_PX
    if count and free_px.min() < 0:
        raise ConfigError(
            f"obstacles of radius {config.obstacle_radius_px} px do not fit inside the loop of the "
            f"track {int(seeds[free_px.argmin()])}: use a smaller obstacle_radius_px or obstacles=0"
        )
    cosine, sine = circle_table(DIRECTIONS)
    x, y = np.zeros((2, len(seeds), count))
    for i in range(count):
        turn = (i + 0.2 + 0.6 * uniform(seeds, _STREAM + 2 * i)) / count
        direction = (turn * DIRECTIONS).astype(np.int64)
        radius = (0.5 + 0.5 * uniform(seeds, _STREAM + 2 * i + 1)) * free_px * grid.UNITS_PER_PX
        x[:, i] = middle[0] + radius * cosine[direction]
        y[:, i] = middle[1] + radius * sine[direction]
    return x, y


def _on_the_road(
    seeds: np.ndarray, shape: Shape, config: TrackConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Places the obstacles along the road, each far enough to one side to be passed."""
    count, radius_px = config.obstacles, config.obstacle_radius_px
    # [M, 1] or [M, P]; the settings ensure the gap on drawn roads.
    widths_px = shape.half_width_px.reshape(len(seeds), -1)
    if count and config.own and 2 * widths_px.min() < config.obstacle_gap_px + radius_px:
        raise ConfigError(
            f"an obstacle of radius {radius_px} px leaves no gap of {config.obstacle_gap_px} px on "
            f"an own track that is {2 * widths_px.min():.1f} px wide: use a smaller "
            "race.track.obstacle_radius_px or race.track.obstacle_gap_px, or race.track.obstacles=0"
        )
    slot = (LAST_ON_ROAD - FIRST_ON_ROAD) / max(count, 1)
    row = np.arange(len(seeds))
    x, y = np.zeros((2, len(seeds), count))
    for i in range(count):
        # Neighbours are always at least three quarters of a slot apart.
        turn = FIRST_ON_ROAD + slot * (i + 0.375 + 0.25 * uniform(seeds, _STREAM + 3 * i))
        index = (turn * config.points).astype(np.int64)
        half_width_px = widths_px[row, np.minimum(index, widths_px.shape[1] - 1)]
        nearest_px = np.clip(config.obstacle_gap_px + radius_px - half_width_px, 0.0, half_width_px)
        farthest_px = np.maximum(nearest_px, half_width_px - radius_px)
        side = np.where(uniform(seeds, _STREAM + 3 * i + 1) < 0.5, -1.0, 1.0)
        spread_px = farthest_px - nearest_px
        offset_px = side * (nearest_px + spread_px * uniform(seeds, _STREAM + 3 * i + 2))
        spot = (
            shape.centre[row, index]
            + shape.mitre[row, index] * (offset_px / half_width_px)[:, None]
        )
        x[:, i], y[:, i] = spot[:, 0], spot[:, 1]
    return x, y
