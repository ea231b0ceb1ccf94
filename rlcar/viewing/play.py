"""Drives a car by keyboard or gamepad in a window; the space bar switches to a policy and back."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pygame

from rlcar.config.race import RaceConfig
from rlcar.errors import UserError
from rlcar.sim import make_race
from rlcar.sim.renderer import FRAMES_PER_S, SIZE_PX, Renderer, scene_of
from rlcar.track import make_pool, make_track
from rlcar.types import TimeStep
from rlcar.viewing.car_policy import CarPolicy

_DEAD_ZONE = 0.1  # of a gamepad's stick
_HELP = "arrows drive, R restarts, N next track, space: policy, Q quits"


class Played(NamedTuple):
    """Result of a game."""

    laps: int
    crashes: int
    best_lap_steps: int | None


class _Controls:
    """The keys that are down, known from events alone, so that tests can send them too."""

    def __init__(self) -> None:
        self.pressed: set[int] = set()
        self.is_policy = False
        pygame.joystick.init()
        self._pads = [pygame.joystick.Joystick(i) for i in range(pygame.joystick.get_count())]

    def handle(self, event: pygame.event.Event) -> None:
        if event.type == pygame.KEYDOWN:
            self.pressed.add(event.key)
        elif event.type == pygame.KEYUP:
            self.pressed.discard(event.key)

    def action(self) -> np.ndarray:
        """Returns steering and throttle, `[1, 2]`."""
        steering = float(pygame.K_LEFT in self.pressed) - float(pygame.K_RIGHT in self.pressed)
        throttle = float(pygame.K_UP in self.pressed) - float(pygame.K_DOWN in self.pressed)
        for pad in self._pads:
            steer, push = -pad.get_axis(0), -pad.get_axis(1)
            steering = steer if abs(steer) > _DEAD_ZONE else steering
            throttle = push if abs(push) > _DEAD_ZONE else throttle
        return np.array([[steering, throttle]], np.float32)


def play(
    race_config: RaceConfig,
    track_seeds: list[int],
    policy: CarPolicy | None = None,
    *,
    frames_per_s: int = FRAMES_PER_S,
    on_frame: Callable[[TimeStep], None] | None = None,
) -> Played:
    """Opens a window and plays until it is closed; the next track follows a finished one.

    `on_frame` gets each time step after it was drawn. Raises UserError if no window can be opened.
    """
    try:
        pygame.display.init()
        window = pygame.display.set_mode(SIZE_PX)
    except pygame.error as error:
        raise UserError(
            f"no window can be opened ({error}): play needs a display; `rlcar render` does not"
        ) from error
    pygame.display.set_caption(f"rlcar: {_HELP}")
    try:
        return _play(window, race_config, track_seeds, policy, frames_per_s, on_frame)
    finally:
        pygame.display.quit()


def _play(
    window: pygame.Surface,
    race_config: RaceConfig,
    track_seeds: list[int],
    policy: CarPolicy | None,
    frames_per_s: int,
    on_frame: Callable[[TimeStep], None] | None,
) -> Played:
    controls, clock = _Controls(), pygame.time.Clock()
    laps: list[int] = []
    crashes, track, message = 0, 0, _HELP
    while True:
        seed = track_seeds[track % len(track_seeds)]
        pool = make_pool([seed], race_config.track)
        race = make_race(race_config, pool, xp=np, track_choice="fixed")
        renderer = Renderer(make_track(seed, race_config.track))
        state, time_step = race.reset(np.zeros(1, np.int32), track)
        while not time_step.is_last[0]:
            for event in pygame.event.get():
                if event.type == pygame.QUIT or _is_pressed(event, pygame.K_q, pygame.K_ESCAPE):
                    return Played(len(laps), crashes, min(laps, default=None))
                controls.handle(event)
                if _is_pressed(event, pygame.K_SPACE) and policy is not None:
                    controls.is_policy = not controls.is_policy
                if _is_pressed(event, pygame.K_r):
                    state, time_step = race.reset(np.zeros(1, np.int32), track)
                if _is_pressed(event, pygame.K_n):
                    track += 1
                    time_step = time_step._replace(is_last=np.ones(1, bool))
            by_policy = controls.is_policy and policy is not None
            scene = scene_of(
                time_step.observation,
                race.view(state),
                race_config,
                mode=f"{policy.name if by_policy and policy else 'by hand'}   {message}",
                latent=policy.latent if by_policy and policy else None,
            )
            window.blit(renderer.draw(scene), (0, 0))
            pygame.display.flip()
            if on_frame is not None:
                on_frame(time_step)
            clock.tick(frames_per_s)
            if time_step.is_last[0]:
                break
            # The policy also acts while a person drives, so that its memory is up to date.
            suggested = None if policy is None else policy.act(time_step)
            action = suggested if by_policy and suggested is not None else controls.action()
            state, time_step, events = race.step(state, action)
            if events.lap_time_steps[0]:
                laps.append(int(events.lap_time_steps[0]))
                track += int(events.is_finish[0])
                message = f"lap in {laps[-1]} steps"
            elif events.is_crash[0]:
                crashes += 1
                message = "crash: again from the start"


def _is_pressed(event: pygame.event.Event, *keys: int) -> bool:
    return event.type == pygame.KEYDOWN and event.key in keys
