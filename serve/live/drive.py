"""The drive that everybody watches: a car, who steers it, a ghost beside it, what came of it."""

from collections import deque
from typing import Any

import numpy as np

from serve.live.car import Car, Course
from serve.live.dream import DREAM_STEPS, LiveDreamer
from serve.live.manual_control import ManualControl
from serve.live.policies import LoadedPolicy, StatefulPolicy
from serve.live.wire import BRAKING, ENDED, MANUAL, RUNNING, Tick

STEPS_PER_S = 30.0  # real time, by the contract of the world
FRAMES_PER_S = 60.0
_PAUSE_STEPS = 30  # the end of an episode is looked at before the next begins
_GHOST_PAUSE_STEPS = 300  # and a ghost may drive on for so long
_DREAM_EVERY_STEPS = 6
assert DREAM_STEPS <= 255


class Drive:
    """Advances the car; pure simulation, no clock and no network."""

    def __init__(self, course: Course, control: ManualControl):
        self.manual_control = control
        self.is_running, self.is_manual = False, False
        self.policy: StatefulPolicy | None = None
        self.ghost: StatefulPolicy | None = None
        self.dreamer: LiveDreamer | None = None
        self.episodes, self.laps, self.steps = 0, 0, 0
        self.rewards: deque[float] = deque(maxlen=100)
        self.dream: np.ndarray | None = None
        self.enter(course)

    def enter(self, course: Course) -> None:
        """Goes to another world, or other tracks."""
        self._course, self._episode, self._place = course, 0, 0
        self.car, self.ghost_car = Car(course), Car(course)
        self.begin()

    def begin(self, track_seed: int | None = None) -> None:
        """Begins an episode on a track, or again on this one; what it hides is drawn anew."""
        seeds = self._course.seeds
        if track_seed is not None:
            self._place = seeds.index(track_seed)
        self._episode += 1
        self.car.begin(seeds[self._place], self._episode)
        self.ghost_car.begin(seeds[self._place], self._episode)
        self._share, self._pause = 0.0, 0
        self.dream = None

    def next_track(self) -> None:
        """Begins an episode on the next track."""
        seeds = self._course.seeds
        self.begin(seeds[(self._place + 1) % len(seeds)])

    def frame(self) -> dict[str, Any] | None:
        """Advances by a frame; returns what there is to tell: an episode ended, or a duel."""
        if not self.is_running:
            return None
        self._share += STEPS_PER_S / FRAMES_PER_S
        if self._share < 1.0:
            return None
        self._share -= 1.0
        return self._step()

    def change(self, loaded: LoadedPolicy) -> None:
        """Puts a policy at the wheel; it takes over where the last one was."""
        if self.policy is None:
            self.policy = StatefulPolicy(loaded)
        else:
            self.policy.change(loaded)

    def tick(self) -> Tick:
        """Says how things stand between the last two steps."""
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
        """The driving policy's latent state `[S, K]`, where it has one."""
        return None if self.policy is None else self.policy.latent

    def _step(self) -> dict[str, Any] | None:
        self.steps += 1
        self._drive_ghost()
        if self.car.is_ended:
            return self._wait()
        self._look()
        action = np.zeros(2, np.float32)
        if self.policy is not None:
            action = self.policy.act(self.car.time_step)
        if self.is_manual:
            action = self.manual_control.action()
        self.car.drive(action)
        for memory in (self.policy, self.dreamer):
            if memory is not None:
                memory.took(action)
        return self._ended() if self.car.is_ended else None

    def _look(self) -> None:
        """Lets the world model see, and dream now and then."""
        if self.dreamer is None:
            return
        self.dreamer.see(self.car.time_step)
        if self.car.steps % _DREAM_EVERY_STEPS == 0:
            self.dream = self.dreamer.dream(self.car)

    def _drive_ghost(self) -> None:
        if self.ghost is not None and not self.ghost_car.is_ended:
            action = self.ghost.act(self.ghost_car.time_step)
            self.ghost_car.drive(action)
        else:
            self.ghost_car.before = self.ghost_car.pose

    def _ended(self) -> dict[str, Any]:
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
        """After an episode: a lap leads to the next track, and so does a policy's crash."""
        self.car.before = self.car.pose
        self._pause += 1
        has_ghost = self.ghost is not None
        is_ghost_out = has_ghost and not self.is_manual and not self.ghost_car.is_ended
        if self._pause < (_GHOST_PAUSE_STEPS if is_ghost_out else _PAUSE_STEPS):
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
