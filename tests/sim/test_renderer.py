"""Pictures of races show every object in its colour and place."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.sim import make_race
from rlcar.sim.gym_env import RaceEnv
from rlcar.sim.renderer import Car, Renderer, Scene, contact_sheet, scene_of
from rlcar.track import CIRCUIT_SEEDS, make_pool, make_tracks

ROAD, YELLOW, RED, BLUE = (74, 78, 86), (240, 196, 48), (224, 49, 49), (66, 135, 245)


@pytest.fixture(scope="module")
def track():
    return make_tracks([20_000], make_race_config("grand-prix").track)[0]


def _colour(frame, point_px):
    x, y = (round(float(value)) for value in point_px)
    return tuple(int(value) for value in frame[y, x])


def _car(track, index, heading_deg=0.0):
    x_px, y_px = track.centre_px[index]
    return Car(float(x_px), float(y_px), heading_deg)


def test_road_obstacles_car_and_rival_are_where_they_are(track):
    gap_px = np.linalg.norm(track.centre_px[:, None] - track.obstacles_px[None], axis=2)
    free = np.flatnonzero(gap_px.min(axis=1) > 25.0)
    place, beside = free[0], free[len(free) // 2]
    rival_px = track.centre_px[free[-1]]
    frame = Renderer(track).rgb_array(Scene(_car(track, place), rival=(*rival_px, 8.0)))
    assert frame.shape == (600, 800, 3)
    assert frame.dtype == np.uint8
    assert _colour(frame, track.centre_px[place]) == RED
    assert _colour(frame, rival_px) == BLUE
    for circle_px in track.obstacles_px:
        assert _colour(frame, circle_px) == YELLOW
    beside_px = 0.5 * (track.centre_px[beside] + track.inner_px[beside])
    assert _colour(frame, beside_px) == ROAD


def test_the_car_points_where_it_heads(track):
    for heading_deg, way in ((0, (1, 0)), (90, (0, -1)), (180, (-1, 0)), (270, (0, 1))):
        frame = Renderer(track).rgb_array(Scene(_car(track, 30, heading_deg)))
        reds = np.argwhere((frame == RED).all(axis=2))[:, ::-1]
        farthest = reds[np.argmax((reds - track.centre_px[30]) @ np.array(way))]
        assert (farthest - track.centre_px[30]) @ np.array(way) > 7


def test_near_rays_are_red_and_far_ones_green(track):
    renderer = Renderer(track)
    car = _car(track, 30)
    plain = renderer.rgb_array(Scene(car)).astype(int)
    for reading, channel in ((0.3, 0), (1.0, 1)):
        drawn = renderer.rgb_array(Scene(car, rays=[reading] * 5)).astype(int) - plain
        assert drawn[..., channel].clip(0).sum() > 2 * drawn[..., 1 - channel].clip(0).sum()


def test_ghosts_and_the_latent_state_change_the_picture(track):
    renderer = Renderer(track)
    scene = Scene(_car(track, 30))
    plain = renderer.rgb_array(scene).copy()
    ghosts = renderer.rgb_array(scene._replace(ghosts=[_car(track, 70), _car(track, 90)]))
    assert _colour(ghosts, track.centre_px[70]) != _colour(ghosts, track.centre_px[90])
    latent = renderer.rgb_array(scene._replace(latent=np.eye(4)))
    assert (latent[10:45, 755:790] != plain[10:45, 755:790]).any()


def test_a_sheet_shows_every_track():
    tracks = make_tracks(list(CIRCUIT_SEEDS.values()), make_race_config("classic").track)
    sheet = contact_sheet(tracks, columns=4, width_px=800)
    assert sheet.shape == (450, 800, 3)
    for index in range(len(tracks)):
        cell = sheet[index // 4 * 150 :][:150, index % 4 * 200 :][:, :200]
        assert (np.abs(cell.astype(int) - ROAD).max(axis=2) < 12).sum() > 1000


@pytest.mark.parametrize("world", ["classic", "grand-prix"])
def test_the_gymnasium_environment_renders_its_race(world):
    env = RaceEnv(world, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    for _ in range(10):
        env.step(np.array([0.0, 1.0], np.float32))
    assert (env.render() != before).any()
    env.close()


def test_the_human_window_shows_the_same_frames(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    env = RaceEnv(render_mode="human")
    env.reset(seed=0)
    window = pygame.display.get_surface()
    assert window.get_size() == (800, 600)
    before = window.get_buffer().raw
    for _ in range(10):
        env.step(np.array([0.0, 1.0], np.float32))
    assert window.get_buffer().raw != before
    env.close()
    assert pygame.display.get_surface() is None


def test_all_cars_of_a_race_are_drawn_and_those_that_left_it_are_not():
    config = RaceConfig(cars_per_track=3, track=TrackConfig(obstacles=0))
    race = make_race(config, make_pool([5, 6], config.track), np, track_choice="fixed")
    state, time_step = race.reset(np.arange(6, dtype=np.int32), 0)
    for _ in range(15):  # the second car stays, so that the others leave it behind
        throttle = np.array([1.0, -1.0, 1.0] * 2, np.float32)
        state, time_step, _ = race.step(state, np.stack([0 * throttle, throttle], axis=1))
    view = race.view(state)
    scene = scene_of(time_step.observation, view, config)
    assert [(car.x_px, car.y_px) for car in scene.others] == [
        (view.x_px[1], view.y_px[1]), (view.x_px[2], view.y_px[2])
    ]  # fmt: skip
    frame = Renderer(make_tracks([5], config.track)[0]).rgb_array(scene)
    assert _colour(frame, (view.x_px[1], view.y_px[1])) != ROAD
    gone = view._replace(is_racing=np.array([True, False, True] * 2))
    assert len(scene_of(time_step.observation, gone, config).others) == 1
    practising = view._replace(is_racing=np.array([False, True, True] * 2))
    assert scene_of(time_step.observation, practising, config).others == ()
