"""Everything that stays the same during a race: settings and tables."""

import math
from typing import Literal, NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import COSINE
from rlcar.sim.motion import curvature_table
from rlcar.sim.rival import pack_lines, scripted_lines
from rlcar.sim.road import Tables, make_tables
from rlcar.sim.traffic import StartingGrid, make_starting_grid
from rlcar.track import TrackPool
from rlcar.track.shape import MIN_CELL_PX
from rlcar.types import Array

TrackChoice = Literal["random", "fixed"]


class World(NamedTuple):
    """Everything that stays the same during a race."""

    backend: Backend
    config: RaceConfig
    tables: Tables
    cosine: Array  # `fixed.COSINE`
    curvature: Array  # `motion.curvature_table`
    rival_line: Array  # packed positions of the rival on all tracks, one track after the other
    rival_start: Array  # [M + 1] index in `rival_line` at which each track begins
    gates_a_step: int  # largest number of gates that a car may pass in one step
    tracks: int  # M
    track_choice: TrackChoice
    grid: StartingGrid | None  # None with a single car on each track


def make_world(
    config: RaceConfig,
    pool: TrackPool,
    backend: Backend,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
) -> World:
    """Prepares the tables of a race; raises ConfigError if the pool has other settings."""
    made = (pool.points, pool.obstacles.shape[1])
    wanted = (config.track.points, config.track.obstacles)
    if made != wanted:
        raise ConfigError(
            f"the track pool was made with (points, obstacles) = {made}, but the race has "
            f"{wanted}: pass the same TrackConfig to make_pool and make_race"
        )
    if rival_lines is None and config.rival is not None:
        rival_lines = scripted_lines(pool, config.rival.pace_px_per_step)
    if rival_lines is not None and (config.rival is None or len(rival_lines) != len(pool.seeds)):
        raise ConfigError(
            f"there are {len(rival_lines)} lines of a rival for {len(pool.seeds)} tracks and "
            f"race.rival = {config.rival}: set race.rival and give one line for each track"
        )
    line, start = pack_lines(rival_lines) if rival_lines else (np.zeros(1), np.zeros(2))

    def table(array: np.ndarray) -> Array:
        return backend.xp.asarray(array.astype(backend.integer))

    return World(
        backend=backend,
        config=config,
        tables=make_tables(backend, pool),
        cosine=table(COSINE),
        curvature=table(curvature_table()),
        rival_line=table(line),
        rival_start=table(start),
        gates_a_step=math.ceil(config.vehicle.top_speed_px_per_step / MIN_CELL_PX),
        tracks=len(pool.seeds),
        track_choice=track_choice,
        grid=make_starting_grid(backend, pool, config) if config.cars_per_track > 1 else None,
    )
