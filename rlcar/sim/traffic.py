"""Several cars on one track: their starting grid, their contacts, and who overtakes whom.

The cars of a track are `cars_per_track` consecutive rows of the arrays. They are a group and begin
a race together, one behind the other. A car whose episode ends leaves the race. Until the last car
of its group has left too, it practises: it drives episodes on the same track alone, neither seen
nor touched by the others. Then the episodes of practising cars are cut off as by a time limit, and
the group begins its next race on another track. So every row drives in every step, and a learner
needs to know nothing about groups.
"""

from typing import Any, NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import LAP_BITS, POSITION_BITS, SENSE_UNITS_PER_PX
from rlcar.sim.road import to_sense
from rlcar.sim.sensors import MovingCircle, is_touching
from rlcar.track import TrackPool, grid
from rlcar.types import Array

# Along the road, from one place of the starting grid to the next; the first one that is free.
_GAPS_PX = (9.0, 8.0, 7.0, 6.0)
_SIDE = 0.35  # of the half-width: the places lie in turn to the left and right of the middle
_OBSTACLE_GAP_PX = 2.0  # between a place of the grid and an obstacle on the road
_NOWHERE = 1 << 22  # 2^-8 px: a car that is not in the race is moved out of everyone's reach
# Two cars are clearly apart if they are this much of a lap apart, in 2^-20: about 10 px. Without
# such a margin, two cars side by side would overtake each other at every step.
_CLEARLY = 1 << (LAP_BITS - 7)


class Traffic(NamedTuple):
    """What each car of a group knows about its races, each array `[N]`."""

    race: Array  # int32, the newest race that the car took part in, counted from 0
    is_racing: Array  # bool; False while the car practises
    # One bool array for each other car, by how many rows that is further on in the group
    # (cyclically): whether this car was the one ahead when the two were last clearly apart.
    is_ahead: tuple[Array, ...]


class StartingGrid(NamedTuple):
    """The starting places of all tracks, `[M * cars]` each: those of a track follow each other."""

    x: Array  # 2^-12 px
    y: Array
    heading: Array  # 2^-22 of a turn
    cell: Array
    lap: Array  # -1 for the places behind the start line
    position: Array  # 2^-20 of a lap


class Meeting(NamedTuple):
    """How the cars met in a step, each array `[N]`."""

    is_at_fault: Array  # bool, the car ran into one ahead of it
    is_hit: Array  # bool, a car behind ran into it
    overtakes: Array  # int32, number of cars that it overtook
    places_gained: Array  # int32, overtakes minus the number of cars that overtook it
    is_ahead: tuple[Array, ...]  # the next `Traffic.is_ahead`


def make_starting_grid(backend: Backend, pool: TrackPool, config: RaceConfig) -> StartingGrid:
    """Places the cars of each track behind its start line, in turn left and right of the middle.

    The first place is that of a single car, on the line. On tracks with an obstacle in the way the
    cars stand closer together. Raises ConfigError if that is not enough.
    """
    gap_px = np.full(len(pool.seeds), _GAPS_PX[0])
    for closer_px in (*_GAPS_PX[1:], None):
        fields, free_px = _places(pool, config.cars_per_track, gap_px)
        is_blocked = free_px < config.track.obstacle_radius_px + _OBSTACLE_GAP_PX
        if config.track.obstacle_placement != "road" or not is_blocked.any():
            return StartingGrid(*(backend.xp.asarray(f.astype(backend.integer)) for f in fields))
        gap_px = np.where(is_blocked, closer_px or 0.0, gap_px)
    raise ConfigError(
        f"an obstacle of the track {int(pool.seeds[is_blocked.argmax()])} stands on the starting "
        f"grid of race.cars_per_track = {config.cars_per_track} cars: use fewer cars or fewer "
        "race.track.obstacles"
    )


def _places(pool: TrackPool, cars: int, gap_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fields of the grid `[6, M * cars]` and the distance to an obstacle `[M]`, in px.

    `gap_px` `[M]` is the distance along the road from one place to the next.
    """
    tracks = np.arange(len(pool.seeds))
    road = pool.edges[:, pool.padding : pool.padding + pool.points + 1]
    vertices = np.stack([grid.unpack_x(road), grid.unpack_y(road)], axis=-1) * 1.0
    obstacle = np.stack([grid.unpack_x(pool.obstacles), grid.unpack_y(pool.obstacles)], axis=-1)
    free_px = np.full(len(tracks), np.inf)
    rows = []
    for place in range(cars):
        behind = place * gap_px * grid.UNITS_PER_PX / pool.length  # as a share of the lap
        position = np.floor(((1.0 - behind) if place else 0.0 * behind) * grid.LAP_UNITS)
        cell = (pool.cell_start[:, 1:] <= position[:, None]).sum(axis=1)
        start, end = pool.cell_start[tracks, cell], pool.cell_start[tracks, cell + 1]
        part = ((position - start) / (end - start))[:, None]
        side = 0.0 if place == 0 else _SIDE * (-1) ** place
        gates = vertices[tracks, cell], vertices[tracks, cell + 1]  # [M, inner and outer, x and y]
        here, there = (
            0.5 * (1 - side) * gate[:, 0] + 0.5 * (1 + side) * gate[:, 1] for gate in gates
        )
        spot = here + part * (there - here)
        away_px = np.linalg.norm(obstacle - spot[:, None], axis=2) / grid.UNITS_PER_PX
        free_px = np.minimum(free_px, away_px.min(axis=1, initial=np.inf))
        along = gates[1].mean(axis=1) - gates[0].mean(axis=1)
        turn = np.arctan2(along[:, 1], along[:, 0]) / (2 * np.pi)
        heading = np.rint(turn * grid.HEADING_UNITS) % grid.HEADING_UNITS
        x, y = np.rint(spot.T * (2.0**POSITION_BITS / grid.UNITS_PER_PX))
        rows.append([x, y, heading, cell, np.full_like(x, -1.0 if place else 0.0), position])
    fields = np.array(rows).transpose(1, 2, 0).reshape(len(StartingGrid._fields), -1)
    return fields, free_px


def first_races(backend: Backend, cars: int, car_id: Array) -> Traffic:
    """Returns the traffic of cars that begin their first race; raises ConfigError for a part of a
    group.
    """
    if len(car_id) % cars:
        raise ConfigError(
            f"{len(car_id)} cars cannot be divided into groups of race.cars_per_track = {cars}: "
            "use a multiple of it"
        )
    xp = backend.xp
    return _on_the_grid(xp, cars, car_id, xp.zeros_like(car_id), xp.ones(car_id.shape, bool))


def next_races(backend: Backend, cars: int, car_id: Array, state: Any) -> Traffic:
    """Returns the traffic of cars whose next episode begins: in a race, or practising.

    `state` is a `RaceState`. The next race of a group begins when no car is racing. A car that
    practises until one step later joins it late.
    """
    xp, traffic = backend.xp, state.traffic
    newest = _of_group(traffic.race, cars, lambda race: race.max(axis=1, keepdims=True))
    is_over = ~_any_of_group(traffic.is_racing & ~state.is_ended, cars)
    is_racing = is_over | (traffic.race < newest)
    race = newest + is_over.astype(backend.integer)
    return _on_the_grid(xp, cars, car_id, race, is_racing)


def starting_places(cars: int, car_id: Array, track: Array, traffic: Traffic, xp: Any) -> Array:
    """Returns the indices into the `StartingGrid`, `[N]`; a practising car has the first place."""
    place = xp.where(traffic.is_racing, _place(cars, car_id, traffic.race), 0)
    return track * cars + place


def others_in_race(backend: Backend, config: RaceConfig, state: Any) -> list[MovingCircle]:
    """Returns the other cars of each car's group, as circles at which its rays end.

    `state` is a `RaceState` `[N]`. Cars that are not in the race are out of reach.
    """
    xp, cars = backend.xp, config.cars_per_track
    radius = int(config.car_radius_px * SENSE_UNITS_PER_PX)
    is_there = state.traffic.is_racing & ~state.is_ended
    x, y = to_sense(state.x), to_sense(state.y)
    circles = []
    for further in range(1, cars):
        is_met = state.traffic.is_racing & _other(is_there, cars, further)
        circles.append(
            MovingCircle(
                xp.where(is_met, _other(x, cars, further), _NOWHERE),
                xp.where(is_met, _other(y, cars, further), _NOWHERE),
                radius,
            )
        )
    return circles


def meet(backend: Backend, config: RaceConfig, before: Any, moved: Any) -> Meeting:
    """Returns the contacts and overtakings of a step; both arguments are `RaceState`s `[N]`.

    Two cars touch if the centre of one is within `car_radius_px` of the centre of the other. The
    one behind, along the shorter way on the lap, is at fault.
    """
    xp, cars, integer = backend.xp, config.cars_per_track, backend.integer
    zero = xp.zeros_like(moved.x)
    is_at_fault = is_hit = zero > 0
    overtakes, overtaken, is_ahead = zero, zero, []
    is_there = before.traffic.is_racing & ~before.is_ended
    driven = (moved.lap << LAP_BITS) + moved.position
    for further, circle in enumerate(others_in_race(backend, config, moved), start=1):
        other_driven = _other(driven, cars, further)
        is_touched = is_touching(backend, circle, moved.x, moved.y)
        # The shorter way, in -2^19 to 2^19 - 1; with none at all, the later row is behind.
        half = 1 << (LAP_BITS - 1)
        way = ((other_driven - driven + half) & ((1 << LAP_BITS) - 1)) - half
        row = moved.car_id % cars
        is_later = row > (row + further) % cars
        is_behind = (way > 0) | ((way == 0) & is_later)
        is_at_fault = is_at_fault | (is_touched & is_behind)
        is_hit = is_hit | (is_touched & ~is_behind)

        was_ahead = before.traffic.is_ahead[further - 1]
        are_racing = is_there & _other(is_there, cars, further)
        is_in_front = are_racing & (driven - other_driven > _CLEARLY)
        is_at_back = are_racing & (other_driven - driven > _CLEARLY)
        overtakes = overtakes + (is_in_front & ~was_ahead).astype(integer)
        overtaken = overtaken + (is_at_back & was_ahead).astype(integer)
        is_ahead.append((was_ahead | is_in_front) & ~is_at_back)
    return Meeting(is_at_fault, is_hit, overtakes, overtakes - overtaken, tuple(is_ahead))


def is_race_over(cars: int, before: Any, is_ended: Array) -> Array:
    """Returns for each car `[N]` whether no car of its group is still racing after a step."""
    return ~_any_of_group(before.traffic.is_racing & ~before.is_ended & ~is_ended, cars)


def _on_the_grid(xp: Any, cars: int, car_id: Array, race: Array, is_racing: Array) -> Traffic:
    place = _place(cars, car_id, race)
    is_ahead = tuple(place < _place(cars, car_id + further, race) for further in range(1, cars))
    return Traffic(race, is_racing & xp.ones(car_id.shape, bool), is_ahead)


def _place(cars: int, car_id: Array, race: Array) -> Array:
    """Returns the places on the grid: each car has all of them in turn, race by race."""
    return (car_id + race) % cars


def _other(values: Array, cars: int, further: int) -> Array:
    """Returns for each car `[N]` the value of the one that is `further` rows on in its group."""
    rows = values.reshape(-1, cars)
    order = (np.arange(cars) + further) % cars
    return rows[:, order].reshape(-1)


def _any_of_group(flags: Array, cars: int) -> Array:
    return _of_group(flags, cars, lambda rows: rows.any(axis=1, keepdims=True))


def _of_group(values: Array, cars: int, reduce: Any) -> Array:
    """Returns for each car `[N]` what `reduce` makes `[G, 1]` of the values `[G, cars]`."""
    reduced = reduce(values.reshape(-1, cars))
    return reduced[:, np.zeros(cars, np.int32)].reshape(-1)
