"""Simulates one car one step at a time, for the live page and for its ghost."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.sim import SPEC, make_race
from rlcar.sim.packed import PackedRace, pack_race
from rlcar.sim.sensors import RAYS
from rlcar.track import make_pool
from rlcar.types import Array, TimeStep
from serve.live.wire import Pose


class Course(NamedTuple):
    """A race over some tracks, compiled for one car."""

    config: RaceConfig
    seeds: range
    race: PackedRace
    rival_px: Callable[[Any], Array]  # packed state -> [1, 2], the rival's x and y


@functools.lru_cache(maxsize=4)
def open_course(config: RaceConfig, seeds: range) -> Course:
    """Compiles a race and runs it once; equal arguments share it. Blocks for seconds."""
    race = make_race(config.alone, make_pool(seeds, config.track), track_choice="fixed")
    packed = pack_race(race, 1)
    course = Course(config, seeds, packed, jax.jit(lambda state: packed.view(state).rival_px))
    car = Car(course)
    car.drive(np.zeros(2, np.float32))
    return course


class Car:
    """Drives one episode after the other; the caller decides when the next begins."""

    def __init__(self, course: Course):
        self.course = course
        self.begin(course.seeds[0], 0)

    def begin(self, track_seed: int, race_seed: int) -> None:
        """Puts the car at the start; `race_seed` determines the hidden state of the episode."""
        self.track_seed = track_seed
        track_index = np.array([self.course.seeds.index(track_seed)], np.int32)
        self._packed = self.course.race.reset(track_index, np.int32(race_seed))
        self.steps, self.reward_sum, self.action = 0, 0.0, np.zeros(2, np.float32)
        self.lap_time_steps, self.is_crash, self.is_ended = 0, False, False
        self._read_state(is_first=True)
        self.before = self.pose

    def drive(self, action: np.ndarray) -> None:
        """Drives one step; does nothing after the episode has ended."""
        if self.is_ended:
            return
        self.action = np.clip(action, -1.0, 1.0).astype(np.float32)
        self.before = self.pose
        self._packed = self.course.race.step(self._packed, self.action)
        self.steps += 1
        self._read_state(is_first=False)

    def preview(self, actions: np.ndarray) -> np.ndarray:
        """Simulates actions `[H, A]` from here and returns `[H, 3 + RAYS]`; the car does not move.

        Rows are x, y, heading and the rays; NaN after the episode's end.
        """
        rows = np.full((len(actions), 3 + RAYS), np.nan, np.float32)
        packed = self._packed
        for row, action in enumerate(np.clip(actions, -1.0, 1.0).astype(np.float32)):
            if self.is_ended:
                break
            packed = self.course.race.step(packed, action)
            values = self.course.race.output(packed)
            observation = values[: SPEC.observation_size]
            _, is_last, _, _, x, y, _, heading, _ = values[SPEC.observation_size :]
            rows[row] = [x, y, heading, *observation[:RAYS]]
            if is_last > 0:
                break
        return rows

    @property
    def time_step(self) -> TimeStep:
        """The input of a policy at this step."""
        return TimeStep(
            observation=self.observation[None],
            reward=np.array([self._reward], np.float32),
            is_first=np.array([self.steps == 0]),
            is_last=np.array([self.is_ended]),
            is_terminal=np.array([self._is_terminal]),
        )

    @property
    def rays(self) -> list[float]:
        """The readings as shares of their range, from right to left."""
        return [float(ray) for ray in self.observation[:RAYS]]

    def _read_state(self, *, is_first: bool) -> None:
        values = self.course.race.output(self._packed)
        self.observation = values[: SPEC.observation_size].copy()
        numbers = values[SPEC.observation_size :].tolist()
        self._reward, is_last, is_terminal, lap_time, x, y, speed, heading, progress = numbers
        self.pose = Pose(x, y, heading, speed, progress)
        self.reward_sum += 0.0 if is_first else self._reward
        self.lap_time_steps = int(lap_time) or self.lap_time_steps
        self.is_ended, self._is_terminal = is_last > 0, is_terminal > 0
        self.is_crash = self._is_terminal and not lap_time
        self.rival = self._locate_rival()

    def _locate_rival(self) -> tuple[float, float, float] | None:
        """Returns the second car's x, y and radius in px, in worlds that have one."""
        rival = self.course.config.rival
        if rival is None:
            return None
        x_px, y_px = np.asarray(self.course.rival_px(self._packed))[0].tolist()
        return x_px, y_px, rival.radius_px
