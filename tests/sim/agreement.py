"""Compares rays and on-road decisions of the simulator with the brute-force reference."""

import numpy as np

from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world, observe
from rlcar.sim.road import locate
from rlcar.sim.state import RaceState
from rlcar.track import make_pool, make_tracks
from tests.sim.brute_force import Pose, distance_to_centre_line_px, ray_distances_px


def compare(config: TrackConfig, seeds: range, poses: int, seed: int = 0):
    """Returns ray errors in px, and the distances of wrong on-road decisions from the border."""
    world = make_world(
        RaceConfig(track=config), make_pool(seeds, config), make_backend(np), "fixed"
    )
    rng = np.random.default_rng(seed)
    errors_px, misjudged_px = [], [np.zeros(1)]
    for index, track in enumerate(make_tracks(seeds, config)):
        cell = rng.integers(config.points, size=poses)
        part, side = rng.uniform(0, 1, (poses, 1)), rng.uniform(-1.15, 1.15, (poses, 1))
        following = (cell + 1) % config.points
        middle = track.centre_px[cell] * (1 - part) + track.centre_px[following] * part
        offset = track.inner_px - track.centre_px
        point = middle + side * (offset[cell] * (1 - part) + offset[following] * part)
        x = np.clip(np.rint(point[:, 0] * 4096), 0, 800 * 4096).astype(np.int32)
        y = np.clip(np.rint((600 - point[:, 1]) * 4096), 0, 600 * 4096).astype(np.int32)
        heading = rng.integers(2**22, size=poses).astype(np.int32)
        zero = np.zeros(poses, np.int32)
        place = locate(
            world.backend, world.tables, zero + index, x, y, cell.astype(np.int32), zero, gates=2
        )
        x_px, y_px = x / 4096, 600 - y / 4096
        distance_px = distance_to_centre_line_px(track, x_px, y_px)
        is_wrong = (distance_px <= track.half_width_px) != place.is_on_road
        misjudged_px.append(np.abs(distance_px - track.half_width_px)[is_wrong])
        state = RaceState(*[zero] * len(RaceState._fields))._replace(
            track=zero + index, x=x, y=y, heading=heading, cell=place.cell
        )
        is_on_road = place.is_on_road
        rays_px = observe(world, state, is_on_road)[is_on_road, :5] * 150.0
        pose = Pose(x_px[is_on_road], y_px[is_on_road], heading[is_on_road] * (360 / 2**22))
        is_with_obstacles = config.obstacle_placement == "road"
        truth_px = ray_distances_px(track, pose, is_with_obstacles)
        errors_px.append(np.abs(rays_px - truth_px).ravel())
    return np.concatenate(errors_px), np.concatenate(misjudged_px)
