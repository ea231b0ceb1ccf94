"""Draws races with pygame on surfaces in memory, which needs no display."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pygame

from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG, RaceConfig
from rlcar.sim.state import CarView
from rlcar.track import Track, grid
from rlcar.types import Array

FRAMES_PER_S = 30
SIZE_PX = (grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX)

_GRASS, _ROAD, _EDGE = (34, 60, 42), (74, 78, 86), (216, 219, 224)
_CENTRE_LINE, _START, _OBSTACLE = (128, 133, 142), (255, 255, 255), (240, 196, 48)
_CAR, _RIVAL, _TEXT, _PANEL = (224, 49, 49), (66, 135, 245), (240, 240, 240), (20, 22, 26)
# Colours of ghosts, which people with red-green colour blindness can distinguish.
_GHOSTS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167))
_CAR_LENGTH_PX, _CAR_WIDTH_PX = 16.0, 9.0
_LATENT_CELL_PX = 8
_MOST_WORDS = 4096  # rendered texts that are kept


class Car(NamedTuple):
    """The pose of a car to draw, in screen coordinates."""

    x_px: float
    y_px: float
    heading_deg: float
    speed_px_per_step: float = 0.0


class Scene(NamedTuple):
    """The content of one picture."""

    car: Car
    rays: Sequence[float] = ()  # distances / range, from right to left
    rival: tuple[float, float, float] | None = None  # x, y, radius in px
    others: Sequence[Car] = ()  # the other cars of the race
    ghosts: Sequence[Car] = ()  # other cars, which do not take part in the race
    progress: float = 0.0
    exploration: float | None = None
    mode: str = ""  # a line of text, such as who drives
    latent: np.ndarray | None = None  # [S, K] probabilities, drawn as squares


class Renderer:
    """Draws scenes on one track. The road is drawn once and copied into each picture."""

    def __init__(self, track: Track):
        pygame.font.init()
        self._font = pygame.font.Font(None, 22)  # the font of pygame
        self._words: dict[str, pygame.Surface] = {}
        self.surface = pygame.Surface(SIZE_PX, depth=32)
        self._background = pygame.Surface(SIZE_PX, depth=32)
        _draw_road(self._background, track)

    def draw(self, scene: Scene) -> pygame.Surface:
        """Draws a scene on `surface` and returns the surface."""
        surface = self.surface
        surface.blit(self._background, (0, 0))
        for ray, angle_deg in zip(scene.rays, RAY_ANGLES_DEG, strict=False):
            _draw_ray(surface, scene.car, float(ray), angle_deg)
        if scene.rival is not None and np.isfinite(scene.rival).all():
            x_px, y_px, radius_px = scene.rival
            pygame.draw.circle(surface, _RIVAL, (x_px, y_px), radius_px)
        for index, other in enumerate((*scene.others, *scene.ghosts)):
            _draw_car(surface, other, _GHOSTS[index % len(_GHOSTS)])
        _draw_car(surface, scene.car, _CAR)
        self._draw_words(scene)
        if scene.latent is not None:
            _draw_latent(surface, scene.latent)
        return surface

    def rgb_array(self, scene: Scene) -> np.ndarray:
        """Returns the picture of a scene, `[600, 800, 3]` uint8."""
        pixels = np.frombuffer(self.draw(scene).get_buffer().raw, np.uint8)
        return pixels.reshape(SIZE_PX[1], SIZE_PX[0], 4)[..., 2::-1]  # from BGRX to RGB

    def _draw_words(self, scene: Scene) -> None:
        car = scene.car
        words = [
            f"speed {car.speed_px_per_step:.1f} px/step",
            f"position {car.x_px:.0f}, {car.y_px:.0f}",
            f"progress {100 * scene.progress:.0f} %",
        ]
        if scene.exploration is not None:
            words.append(f"exploration {scene.exploration:.2f}")
        if scene.mode:
            words.append(scene.mode)
        for row, text in enumerate(words):
            if len(self._words) > _MOST_WORDS:
                self._words.clear()
            if text not in self._words:
                self._words[text] = self._font.render(text, True, _TEXT)
            self.surface.blit(self._words[text], (10, 8 + 18 * row))


def contact_sheet(tracks: Sequence[Track], columns: int, width_px: int = 1600) -> np.ndarray:
    """Draws many tracks in one picture, `[height, width, 3]` uint8, with a car at each start."""
    cell = (width_px // columns, width_px // columns * SIZE_PX[1] // SIZE_PX[0])
    rows = -(-len(tracks) // columns)
    sheet = pygame.Surface((cell[0] * columns, cell[1] * rows), depth=32)
    for index, track in enumerate(tracks):
        picture = Renderer(track).draw(
            Scene(_at_start(track), mode=track.name or f"track {track.seed}")
        )
        place = (index % columns * cell[0], index // columns * cell[1])
        sheet.blit(pygame.transform.smoothscale(picture, cell), place)
    pixels = np.frombuffer(sheet.get_buffer().raw, np.uint8)
    return pixels.reshape(sheet.get_height(), sheet.get_width(), 4)[..., 2::-1]


def _at_start(track: Track) -> Car:
    ahead = track.centre_px[1] - track.centre_px[0]
    heading_deg = float(np.rad2deg(np.arctan2(-ahead[1], ahead[0]))) % 360.0
    return Car(float(track.centre_px[0, 0]), float(track.centre_px[0, 1]), heading_deg)


def _draw_road(surface: pygame.Surface, track: Track) -> None:
    surface.fill(_GRASS)
    inner, outer = map(list, track.borders_px)
    pygame.draw.polygon(surface, _ROAD, outer)
    pygame.draw.polygon(surface, _GRASS, inner)
    pygame.draw.aalines(surface, _EDGE, True, outer)
    pygame.draw.aalines(surface, _EDGE, True, inner)
    for start, end in zip(track.centre_px[::2], track.centre_px[1::2], strict=False):
        pygame.draw.aaline(surface, _CENTRE_LINE, start, end)
    pygame.draw.line(surface, _START, inner[0], outer[0], 3)
    for circle_px in track.obstacles_px:
        pygame.draw.circle(surface, _OBSTACLE, circle_px, track.obstacle_radius_px)


def _draw_ray(surface: pygame.Surface, car: Car, reading: float, angle_deg: float) -> None:
    end = _ahead(car, reading * RANGE_PX, car.heading_deg + angle_deg)
    near = min(max(1.0 - reading, 0.0), 1.0)
    colour = (int(255 * near), int(220 * (1.0 - near)), 60)
    pygame.draw.aaline(surface, colour, (car.x_px, car.y_px), end)


def _draw_car(surface: pygame.Surface, car: Car, colour: tuple[int, int, int]) -> None:
    nose = _ahead(car, 0.6 * _CAR_LENGTH_PX, car.heading_deg)
    corners = [_ahead(car, -0.4 * _CAR_LENGTH_PX, car.heading_deg)] * 2
    side = _ahead(Car(0.0, 0.0, 0.0), 0.5 * _CAR_WIDTH_PX, car.heading_deg + 90.0)
    left = (corners[0][0] + side[0], corners[0][1] + side[1])
    right = (corners[1][0] - side[0], corners[1][1] - side[1])
    pygame.draw.polygon(surface, colour, [nose, left, right])


def _ahead(car: Car, distance_px: float, heading_deg: float) -> tuple[float, float]:
    angle_rad = np.deg2rad(heading_deg)
    return (
        car.x_px + distance_px * float(np.cos(angle_rad)),
        car.y_px - distance_px * float(np.sin(angle_rad)),
    )


def _draw_latent(surface: pygame.Surface, latent: np.ndarray) -> None:
    """Draws the probabilities of the latent state in the upper right corner, one row a group."""
    groups, classes = latent.shape
    left = SIZE_PX[0] - 10 - classes * _LATENT_CELL_PX
    surface.fill(_PANEL, (left - 2, 8, classes * _LATENT_CELL_PX + 4, groups * _LATENT_CELL_PX + 4))
    for row, probabilities in enumerate(latent):
        for column, probability in enumerate(np.clip(probabilities, 0.0, 1.0)):
            shade = int(40 + 215 * probability)
            place = (left + column * _LATENT_CELL_PX, 10 + row * _LATENT_CELL_PX)
            surface.fill((shade, shade, 60), (*place, _LATENT_CELL_PX - 1, _LATENT_CELL_PX - 1))


def scene_of(observation: Array, view: CarView, config: RaceConfig, **extra: Any) -> Scene:
    """Returns the scene of the first car of a race; `extra` are other fields of `Scene`.

    It shows the other cars of the same track while they are in the race.
    """

    def first(values: Array) -> float:
        return float(np.asarray(values)[0])

    others: tuple[Car, ...] = ()
    if config.cars_per_track > 1:
        is_racing = np.asarray(view.is_racing)
        poses = [np.asarray(array) for array in (view.x_px, view.y_px, view.heading_deg)]
        others = tuple(
            Car(*(float(values[row]) for values in poses))
            for row in range(1, config.cars_per_track)
            if is_racing[0] and is_racing[row]
        )
    rival = None
    if config.rival is not None:
        x_px, y_px = np.asarray(view.rival_px)[0]
        rival = (float(x_px), float(y_px), config.rival.radius_px)
    car = Car(
        first(view.x_px),
        first(view.y_px),
        first(view.heading_deg),
        first(view.speed_px_per_step),
    )
    rays = [float(ray) for ray in np.asarray(observation)[0, : len(RAY_ANGLES_DEG)]]
    progress = first(view.progress)
    return Scene(car, rays=rays, rival=rival, others=others, progress=progress, **extra)
