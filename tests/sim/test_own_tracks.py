"""Own tracks of every shape are sensed, driven and bounded as exactly as drawn ones."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.errors import ConfigError
from rlcar.evaluation.drivers import make_reference
from rlcar.evaluation.laps import drive
from rlcar.sim import make_race
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world
from rlcar.sim.road import locate
from rlcar.track import make_pool, make_tracks, set_seeds
from rlcar.track.bound import lap_time_bound_steps
from rlcar.track.own.fitting import Scale
from rlcar.track.own.reading import with_own_tracks
from tests.sim.agreement import compare
from tests.sim.brute_force import distance_to_centre_line_px
from tests.track.own.shapes import write


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tracks"))


def test_rays_on_roads_of_changing_width_agree_with_brute_force(files):
    config = with_own_tracks(TrackConfig(obstacle_placement="road", obstacles=4), files, Scale())
    assert make_pool(range(5), config).half_width.shape == (5, 100)
    errors_px, _ = compare(config, range(5), 1_500)
    assert len(errors_px) > 25_000
    assert np.minimum(errors_px, 1.0).mean() < 0.03
    assert (errors_px > 1.0).mean() < 1e-3


def test_roads_of_one_width_are_judged_as_by_brute_force(files):
    config = with_own_tracks(TrackConfig(), files, Scale(road_width_px=50.0))
    assert make_pool(range(5), config).half_width.shape == (5,)
    errors_px, misjudged_px = compare(config, range(5), 1_500)
    assert np.minimum(errors_px, 1.0).mean() < 0.03
    assert misjudged_px.max() < 0.03


def test_a_road_is_as_wide_as_at_the_narrower_gate_of_each_cell(files):
    config = with_own_tracks(TrackConfig(), files, Scale())
    pool = make_pool(range(5), config)
    world = make_world(RaceConfig(track=config), pool, make_backend(np), "fixed")
    rng = np.random.default_rng(0)
    for index, track in enumerate(make_tracks(range(5), config)):
        cell = rng.integers(100, size=4_000).astype(np.int32)
        part = rng.uniform(0.05, 0.95, (4_000, 1))
        following = (cell + 1) % 100
        gates_px = np.stack([track.inner_px, track.outer_px])
        across = rng.uniform(-0.1, 1.1, (4_000, 1))
        here, there = (
            gates_px[0, gate] + across * (gates_px[1, gate] - gates_px[0, gate])
            for gate in (cell, following)
        )
        point_px = here + part * (there - here)
        x = np.rint(point_px[:, 0] * 4096).astype(np.int32)
        y = np.rint((600 - point_px[:, 1]) * 4096).astype(np.int32)
        zero = np.zeros(4_000, np.int32)
        place = locate(world.backend, world.tables, zero + index, x, y, cell, zero, gates=2)
        np.testing.assert_array_equal(place.cell, cell)
        narrower_px = np.minimum(track.half_widths_px[cell], track.half_widths_px[following])
        distance_px = distance_to_centre_line_px(track, point_px[:, 0], point_px[:, 1])
        is_near = np.abs(distance_px - narrower_px) < 0.05
        wanted = distance_px <= narrower_px
        np.testing.assert_array_equal(place.is_on_road[~is_near], wanted[~is_near])
        # Whoever is on the road is within the edges.
        assert ((across >= 0) & (across <= 1))[place.is_on_road].all()


def test_numpy_and_jax_drive_the_same_bits(files):
    import jax

    track = TrackConfig(obstacle_placement="road", obstacles=3)
    track = with_own_tracks(track, files, Scale())
    race_config = RaceConfig(track=track, time_limit_steps=100)
    pool = make_pool(range(20), track)
    cars = np.arange(64, dtype=np.int32)
    ours, theirs = make_race(race_config, pool, np), make_race(race_config, pool)
    step = jax.jit(theirs.step)
    one, moment = ours.reset(cars, 5)
    other, _ = theirs.reset(cars, 5)
    rng = np.random.default_rng(1)
    for _ in range(150):
        rays = moment.observation
        steering = np.clip(3 * (rays[:, 3] - rays[:, 1]) + rng.normal(0, 0.1, 64), -1, 1)
        action = np.stack([steering, np.ones(64)], axis=1).astype(np.float32)
        one, moment, _ = ours.step(one, action)
        other, again, _ = step(other, action)
        for left, right in zip(
            jax.tree.leaves((one, moment)), jax.tree.leaves((other, again)), strict=True
        ):
            np.testing.assert_array_equal(left, np.asarray(right))
    assert (one.episode > 0).any()


@pytest.mark.long
def test_a_driver_that_sees_the_road_laps_every_shape_and_beats_no_bound(files):
    race = make_race_config("grand-prix-2")
    track = with_own_tracks(race.track, files, Scale())
    race = race.model_copy(update={"track": track})
    seeds = tuple(set_seeds("test", track))
    laps = drive(make_reference(seeds, race), None, race, "test")
    assert (laps.lap_time_steps > 0).all()
    top = race.vehicle.top_speed_px_per_step
    bound_steps = lap_time_bound_steps(make_tracks(seeds, track), top)
    assert (laps.lap_time_steps >= bound_steps).all()
    assert (laps.lap_time_steps < 1.3 * bound_steps).all()


def test_an_obstacle_that_closes_an_own_road_is_refused(files):
    race = make_race_config("grand-prix").track
    narrow = with_own_tracks(race, files, Scale(road_width_px=22.0))
    with pytest.raises(ConfigError, match=r"leaves no gap of 16.0 px on an own track that is 22.0"):
        make_pool(range(5), narrow)


def test_eight_cars_start_on_the_road_of_every_own_track(files):
    track = with_own_tracks(TrackConfig(), files, Scale())
    race_config = RaceConfig(track=track, cars_per_track=8)
    race = make_race(race_config, make_pool(range(5), track), np, track_choice="fixed")
    state, moment = race.reset(np.arange(40, dtype=np.int32), 0)
    assert moment.observation[:, :5].min() > 0  # no ray begins behind an edge
    ahead = np.tile(np.array([0.0, 1.0], np.float32), (40, 1))
    for _ in range(20):
        state, _, events = race.step(state, ahead)
        assert not events.is_crash.any()
    assert (race.view(state).speed_px_per_step > 2).all()
