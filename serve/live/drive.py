"""The drive that the live page shows: a car, its driver, a ghost beside it, and the results."""

from collections import deque
from typing import Any

import numpy as np

from serve.live.car import Car, Course
from serve.live.dream import DREAM_STEPS, LiveDreamer
from serve.live.loaded_policy import LoadedPolicy, StatefulPolicy
from serve.live.manual_control import ManualControl
from serve.live.track import report_track
from serve.live.wire import BRAKING, ENDED, MANUAL, RUNNING, Tick, pack_tick

STEPS_PER_S = 30.0  # real time, as the race defines it
FRAMES_PER_S = 60.0
_PAUSE_STEPS = 30  # between the end of an episode and the next one
_GHOST_PAUSE_STEPS = 300  # the same, while the ghost still drives
_DREAM_EVERY_STEPS = 6
assert DREAM_STEPS <= 255


class Drive:
    """Advances the car; pure simulation, without a clock or a network."""

    def __init__(self, course: Course, control: ManualControl):
        self.manual_control = control
        self.is_running, self.is_manual = False, False
        self.policy: StatefulPolicy | None = None
        self.ghost: StatefulPolicy | None = None
        self.dreamer: LiveDreamer | None = None
        self.episodes, self.laps, self.steps = 0, 0, 0
        self.rewards: deque[float] = deque(maxlen=100)
        self.dream: np.ndarray | None = None
        self.set_course(course)

    def set_course(self, course: Course) -> None:
        """Begins on another course: another race, or other tracks."""
        self._course, self._episode, self._track_index = course, 0, 0
        self.car, self.ghost_car = Car(course), Car(course)
        self.begin()

    def begin(self, track_seed: int | None = None) -> None:
        """Begins an episode on a track, or again on this one, with a new hidden state."""
        seeds = self._course.seeds
        if track_seed is not None:
            self._track_index = seeds.index(track_seed)
        self._episode += 1
        self.car.begin(seeds[self._track_index], self._episode)
        self.ghost_car.begin(seeds[self._track_index], self._episode)
        self._share, self._pause = 0.0, 0
        self.dream = None

    def next_track(self) -> None:
        """Begins an episode on the next track."""
        seeds = self._course.seeds
        self.begin(seeds[(self._track_index + 1) % len(seeds)])

    def close(self) -> None:
        """Does nothing, because nothing is held."""

    def frame(self, seconds: float = 1.0 / FRAMES_PER_S) -> dict[str, Any] | None:
        """Advances by a frame; returns an event for the page: an episode's or a duel's end."""
        if not self.is_running:
            return None
        self._share += STEPS_PER_S * seconds
        if self._share < 1.0:
            return None
        self._share -= 1.0
        return self._step()

    def set_policy(self, loaded: LoadedPolicy) -> None:
        """Lets another policy drive on from where the car is."""
        if self.policy is None:
            self.policy = StatefulPolicy(loaded)
        else:
            self.policy.replace(loaded)

    def pack(self, count: int, time_ms: float) -> bytes | None:
        """Packs the state at this frame."""
        return pack_tick(count, time_ms, self.tick())

    def describe(self) -> tuple[str, dict[str, Any]]:
        """Returns the message that tells a page what it shows."""
        return "track", report_track(self.car, self._course.seeds)

    def tick(self) -> Tick:
        """Returns the state at this frame, between the last two steps."""
        car, share = self.car, self._share if self.is_running else 1.0
        flags = RUNNING * self.is_running + MANUAL * self.is_manual + ENDED * car.is_ended
        flags += BRAKING * (self.is_manual and self.is_running and self.manual_control.is_braking)
        steering, throttle = car.action.tolist()
        return Tick(
            flags=flags,
            pose=car.before.towards(car.pose, share),
            action=(steering, throttle),
            episode_steps=car.steps,
            reward=car.reward_sum,
            rays=car.rays,
            rival=car.rival,
            ghost=None
            if self.ghost is None
            else self.ghost_car.before.towards(self.ghost_car.pose, share),
        )

    @property
    def latent(self) -> np.ndarray | None:
        """The driving policy's latent state `[S, K]`, if it has one."""
        return None if self.policy is None else self.policy.latent

    def _step(self) -> dict[str, Any] | None:
        self.steps += 1
        self._drive_ghost()
        if self.car.is_ended:
            return self._wait()
        self._update_dream()
        action = np.zeros(2, np.float32)
        if self.policy is not None:
            action = self.policy.act(self.car.time_step)
        if self.is_manual:
            action = self.manual_control.action()
        self.car.drive(action)
        for observer in (self.policy, self.dreamer):
            if observer is not None:
                observer.record_action(action)
        return self._end_episode() if self.car.is_ended else None

    def _update_dream(self) -> None:
        """Shows the world model the observation, and lets it dream every few steps."""
        if self.dreamer is None:
            return
        self.dreamer.observe(self.car.time_step)
        if self.car.steps % _DREAM_EVERY_STEPS == 0:
            self.dream = self.dreamer.dream(self.car)

    def _drive_ghost(self) -> None:
        if self.ghost is not None and not self.ghost_car.is_ended:
            action = self.ghost.act(self.ghost_car.time_step)
            self.ghost_car.drive(action)
        else:
            self.ghost_car.before = self.ghost_car.pose

    def _end_episode(self) -> dict[str, Any]:
        car = self.car
        self.episodes += 1
        self.laps += car.lap_time_steps > 0
        self.rewards.append(car.reward_sum)
        self.dream = None
        return {"kind": "episode", "reward": round(car.reward_sum, 3), **self._result()}

    def _result(self) -> dict[str, Any]:
        name = "nobody" if self.policy is None else self.policy.loaded.label
        return _result(self.car, "by hand" if self.is_manual else name)

    def _wait(self) -> dict[str, Any] | None:
        """Waits after an episode, and then begins the next.

        A lap leads to the next track, and so does the crash of a policy; a person tries again.
        """
        self.car.before = self.car.pose
        self._pause += 1
        has_ghost = self.ghost is not None
        is_ghost_driving = has_ghost and not self.is_manual and not self.ghost_car.is_ended
        if self._pause < (_GHOST_PAUSE_STEPS if is_ghost_driving else _PAUSE_STEPS):
            return None
        duel = None
        if self.ghost is not None:
            ghost = _result(self.ghost_car, self.ghost.loaded.label)
            duel = {"kind": "duel", "car": self._result(), "ghost": ghost}
        if self.car.lap_time_steps or not self.is_manual:
            self.next_track()
        else:
            self.begin()
        return duel


def _result(car: Car, driver: str) -> dict[str, Any]:
    return {
        "driver": driver,
        "track_seed": car.track_seed,
        "steps": car.steps,
        "lap_time_steps": car.lap_time_steps or None,
        "is_crash": car.is_crash,
        "progress": round(car.pose.progress, 4),
    }
