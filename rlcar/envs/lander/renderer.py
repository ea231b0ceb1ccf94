"""Draws a lander from the side and from above with pygame, on surfaces that need no display."""

import math

import numpy as np
import pygame

from rlcar.envs.lander.dynamics import MAX_GIMBAL_RAD, throttle_of
from rlcar.envs.lander.ending import LEG_M
from rlcar.envs.lander.environment import LanderState, make_world
from rlcar.envs.lander.settings import LanderSettings
from rlcar.envs.lander.terrain import PAD_RADIUS_M, Ground, height_m
from rlcar.envs.lander.vectors import Vector, rotate

WIDTH_PX, HEIGHT_PX = 640, 480
_SKY, _SOIL, _RIM = (10, 12, 22), (92, 92, 98), (150, 150, 158)
_PAD, _BODY, _FLAME, _TEXT = (80, 200, 120), (225, 225, 230), (255, 170, 60), (235, 235, 235)
_MAP_PX, _MARGIN_PX = 110, 12
# The picture is scaled to these widths, from wide to close, so that the ground stays in view.
_SMALLEST_WIDTH_M = 60.0
_LANDER_PX = 12.0  # least size of the lander in the picture


class LanderRenderer:
    """Draws the scenes of one environment; the terrain follows from the state."""

    def __init__(self, settings: LanderSettings):
        pygame.font.init()
        self._font = pygame.font.Font(None, 20)
        self._world = make_world(settings, np)
        self.surface = pygame.Surface((WIDTH_PX, HEIGHT_PX), depth=32)

    def rgb_array(self, state: LanderState, action: np.ndarray) -> np.ndarray:
        """Returns the picture `[480, 640, 3]` uint8 of a state whose N is 1."""
        self.draw(state, action)
        return np.ascontiguousarray(pygame.surfarray.array3d(self.surface).swapaxes(0, 1))

    def draw(self, state: LanderState, action: np.ndarray) -> pygame.Surface:
        """Draws a state whose N is 1 and the action `[6]` that led to it; returns the surface."""
        motion = state.motion
        x, y, z = (float(np.asarray(part)[0]) for part in motion.position_m)
        width = max(_SMALLEST_WIDTH_M, 2.4 * abs(x), 1.6 * (z + 5.0))
        px_per_m = WIDTH_PX / width
        centre, base = 0.5 * x, HEIGHT_PX - 60.0

        def place(east: float, height: float) -> tuple[float, float]:
            return WIDTH_PX / 2 + (east - centre) * px_per_m, base - height * px_per_m

        self.surface.fill(_SKY)
        self._draw_ground(state, y, centre, width, place)
        self._draw_lander(state, np.asarray(action, np.float32), px_per_m, place)
        self._draw_map(x, y)
        self._draw_text(state, action)
        return self.surface

    def _draw_ground(self, state, y, centre, width, place) -> None:  # type: ignore[no-untyped-def]
        east = np.linspace(centre - 0.5 * width, centre + 0.5 * width, 161, dtype=np.float32)
        field = np.full(east.shape, int(np.asarray(state.field)[0]), np.int32)
        ground = Ground(self._world.terrain, field)
        heights = height_m(np, ground, east, np.full_like(east, y))
        rim = [place(float(a), float(b)) for a, b in zip(east, heights, strict=True)]
        pygame.draw.polygon(self.surface, _SOIL, [*rim, (WIDTH_PX, HEIGHT_PX), (0, HEIGHT_PX)])
        pygame.draw.lines(self.surface, _RIM, False, rim, 2)
        pad = [place(-PAD_RADIUS_M, 0.0), place(PAD_RADIUS_M, 0.0)]
        pygame.draw.line(self.surface, _PAD, pad[0], pad[1], 5)

    def _draw_lander(self, state, action, px_per_m, place) -> None:  # type: ignore[no-untyped-def]
        motion = state.motion
        position = [float(np.asarray(part)[0]) for part in motion.position_m]
        size = max(1.0, _LANDER_PX / px_per_m / 3.0)

        def at(side: float, up: float) -> tuple[float, float]:
            arm = rotate(motion.attitude, Vector(side * size, 0.0 * side, up * size))
            return place(
                position[0] + float(np.asarray(arm.x).reshape(-1)[0]),
                position[2] + float(np.asarray(arm.z).reshape(-1)[0]),
            )

        throttle = _throttle(action)
        if throttle > 0.02 and float(np.asarray(motion.fuel_kg)[0]) > 0.0:
            swing = -math.sin(MAX_GIMBAL_RAD * float(np.clip(action[1], -1.0, 1.0)))
            length = 1.0 + 4.0 * throttle
            tip = at(length * swing, -0.8 - length)
            pygame.draw.polygon(self.surface, _FLAME, [at(-0.35, -0.8), at(0.35, -0.8), tip])
        for side in (-1.0, 1.0):
            pygame.draw.line(self.surface, _BODY, at(0.8 * side, -0.4), at(1.5 * side, -LEG_M), 2)
        hull = [
            at(-1.0, -0.6),
            at(1.0, -0.6),
            at(1.0, 0.5),
            at(0.5, 1.1),
            at(-0.5, 1.1),
            at(-1, 0.5),
        ]
        pygame.draw.polygon(self.surface, _BODY, hull)

    def _draw_map(self, x: float, y: float) -> None:
        corner = (WIDTH_PX - _MAP_PX - _MARGIN_PX, _MARGIN_PX)
        middle = (corner[0] + _MAP_PX / 2, corner[1] + _MAP_PX / 2)
        pygame.draw.rect(self.surface, (30, 34, 46), (*corner, _MAP_PX, _MAP_PX))
        scale = 0.45 * _MAP_PX / max(2.0 * PAD_RADIUS_M, math.hypot(x, y))
        pygame.draw.circle(self.surface, _PAD, middle, max(2.0, PAD_RADIUS_M * scale), 2)
        pygame.draw.circle(self.surface, _BODY, (middle[0] + x * scale, middle[1] - y * scale), 3)

    def _draw_text(self, state: LanderState, action: np.ndarray) -> None:
        motion = state.motion
        x, y, z = (float(np.asarray(part)[0]) for part in motion.position_m)
        velocity = [float(np.asarray(part)[0]) for part in motion.velocity_m_s]
        lines = (
            f"height {z - LEG_M:7.1f} m",
            f"offset {math.hypot(x, y):7.1f} m",
            f"vertical {velocity[2]:6.1f} m/s",
            f"horizontal {math.hypot(velocity[0], velocity[1]):5.1f} m/s",
            f"throttle {100.0 * _throttle(action):4.0f} %",
            f"fuel {float(np.asarray(motion.fuel_kg)[0]):5.1f} kg",
            f"time {0.1 * int(np.asarray(state.steps)[0]):5.1f} s",
        )
        for row, text in enumerate(lines):
            picture = self._font.render(text, True, _TEXT)
            self.surface.blit(picture, (_MARGIN_PX, _MARGIN_PX + 18 * row))


def _throttle(action: np.ndarray) -> float:
    return float(throttle_of(np, np.clip(action[0], -1.0, 1.0)))
