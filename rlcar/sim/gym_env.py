"""The race as a Gymnasium environment: one car, one compiled call for each step."""

import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import gymnasium
import numpy as np

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import ConfigError
from rlcar.sim.packed import PackedRace, pack_race
from rlcar.sim.race import SPEC, make_race
from rlcar.track import TRACK_SETS, grid, make_pool, make_track, set_seeds
from rlcar.types import Array

if TYPE_CHECKING:
    import pygame

    from rlcar.sim.renderer import Renderer, Scene


class RaceEnv(gymnasium.Env):
    """One car drives a closed road that it has not seen before, as fast as it can.

    `gymnasium.make("rlcar/Race-v0", **arguments)` makes it, with the arguments below;
    `"rlcar/GrandPrix-v0"` is the same environment with `world="grand-prix"`.

    World: in "classic" steering turns the car on the spot, and the road is 80 px wide. In
    "grand-prix" a single-track car understeers beyond its grip, roads are narrow and hold
    obstacles, actions are delayed, sensors are noisy, and a second car (the rival) drives along.
    Grip, delay, noise and the start of the rival are drawn for each episode and not observed.
    "grand-prix-1" to "grand-prix-5" are five stages of growing difficulty; the fifth is
    "grand-prix". A second has 30 env steps.

    Observation: `Box(0, 1, (6,), float32)`:

    | Index | Meaning                                                | Unit of 1.0 | Range    |
    | ----- | ------------------------------------------------------ | ----------- | -------- |
    | 0     | free distance at -45 degrees (right) from the heading  | 150 px      | 0 to 1   |
    | 1     | free distance at -22.5 degrees                         | 150 px      | 0 to 1   |
    | 2     | free distance straight ahead                           | 150 px      | 0 to 1   |
    | 3     | free distance at 22.5 degrees                          | 150 px      | 0 to 1   |
    | 4     | free distance at 45 degrees (left)                     | 150 px      | 0 to 1   |
    | 5     | speed, over the top speed of the car                   | top speed   | 0 to 1   |

    A free distance ends at the edge of the road, at an obstacle on it or at the rival; 1 means that
    nothing is in range. The top speed of the classic car is 5 px/step.

    Action: `Box(-1, 1, (2,), float32)`. Values out of range are clipped; a NaN is a ValueError.

    | Index | Meaning  | Effect of 1                                                           |
    | ----- | -------- | --------------------------------------------------------------------- |
    | 0     | steering | classic: turns 5 degrees to the left in a step; single-track: turns   |
    |       |          | the front wheels 30 degrees to the left. -1 is the same to the right. |
    | 1     | throttle | adds 0.2 px/step to the speed. -1 subtracts 0.2 px/step (classic) or  |
    |       |          | 0.4 px/step (single-track), down to 0.                                |

    Drag takes 1 % of the speed at each step.

    Reward, by the setting `race.reward`:

    | Event                | "progress" (default)                       | "documented"         |
    | -------------------- | ------------------------------------------ | -------------------- |
    | every step           | 1,000 x part of a lap driven in the step   | speed in px/step     |
    |                      | (negative backwards), minus 0.1            | plus 0.1             |
    | new tenth of the lap | nothing more                               | plus 5 + 30 / steps  |
    |                      |                                            | since the last one   |
    | crash                | minus 10                                   | -10 instead          |

    By default a lap without a crash therefore pays 1,000 minus 0.1 for each step, and the price of
    a crash is 10. The constants are in `rlcar/sim/rewards.py`.

    End of an episode: it is terminated by a crash (the car's centre is farther from the centre
    line than half the width of the road, or touches an obstacle on the road or the rival) and when
    the car has driven `race.laps` laps (1 by default). It is truncated after
    `race.time_limit_steps` steps (1,000 by default). Both never happen at once.

    Info: `progress` (0 to 1 of the lap), `x` and `y` (px, y points down), `speed` (px/step),
    `heading` (degrees; 0 is to the right, 90 is up), `track_seed` and `lap_time` (steps of the lap
    that ended in this step, else 0). Every step and every reset has the same keys, as recorders
    such as `minari.DataCollector` require.

    Reset: `reset(seed=...)` determines all tracks and hidden conditions of this and the
    following resets. `reset(options={"track_seed": 7})` chooses the track instead.

    Versions: v0 is the only version. By Gymnasium's convention a change of the dynamics, the
    reward or the spaces makes a new version. The same seed gives the same bits on every machine.

    Making an environment turns off JAX's asynchronous dispatch on the CPU for the process, because
    handing over a single step would take longer than the step itself. This changes no result and
    has no effect once JAX has computed something.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 30}

    def __init__(
        self,
        world: str = "classic",
        config: RaceConfig | None = None,
        track_set: Literal["train", "validation", "test", "circuits"] = "train",
        render_mode: Literal["human", "rgb_array"] | None = None,
    ):
        """Makes the environment.

        `world` names the settings of the race, which `config` replaces if it is given. `track_set`
        is the set of tracks from which `reset` draws. `render_mode` "human" opens a window;
        "rgb_array" makes `render` return pictures.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"unknown render_mode {render_mode!r}: choose one of "
                f"{self.metadata['render_modes']} or None"
            )
        disable_async_dispatch()
        self.render_mode = render_mode
        self._renderer: tuple[int, Renderer] | None = None  # with the seed of its track
        self._window: pygame.Surface | None = None
        # Of the last call, in the order of `PackedRace.output`.
        self._output = np.zeros(0, np.float32)
        self.config = make_race_config(world) if config is None else config
        if self.config.cars_per_track > 1:
            raise ConfigError(
                f"this environment drives one car, but race.cars_per_track is "
                f"{self.config.cars_per_track}: use gymnasium.make_vec or rlcar.sim.make_race"
            )
        self._seeds = set_seeds(track_set, self.config.track)
        self.observation_space = gymnasium.spaces.Box(0, 1, (SPEC.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_size,), np.float32)
        self._track_seed = -1
        self._course: _Course | None = None
        self._state: Array = None  # the packed state of the race, before the first reset None
        self._is_ended = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the car at the start of the next track."""
        super().reset(seed=seed)
        drawn = self._seeds[int(self.np_random.integers(len(self._seeds)))]
        self._track_seed = int((options or {}).get("track_seed", drawn))
        self._course = _course_of(self.config, self._track_seed)
        # The hidden conditions of the episode, such as the grip, follow from this seed.
        race_seed = np.int32(self.np_random.integers(2**31))
        car = np.array([self._course.seeds.index(self._track_seed)], np.int32)
        race = self._course.race
        self._state = race.reset(car, race_seed)
        self._output = output = race.output(self._state)
        self._is_ended = False
        if self.render_mode == "human":
            self._show()
        pose = output[-5:].tolist()
        return output[: SPEC.observation_size].copy(), self._info(pose)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Drives one step. After the end of an episode call `reset` first."""
        if self._course is None or self._is_ended:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        action = np.asarray(action, np.float32)
        if action.shape != (SPEC.action_size,):
            raise ValueError(
                f"the action has the shape {action.shape}: pass an array of the shape "
                f"({SPEC.action_size},)"
            )
        steering, throttle = action.tolist()
        if (
            steering != steering or throttle != throttle
        ):  # NaN; np.isnan takes 1.4 of the 18 us of a step
            raise ValueError(
                f"the action [{steering}, {throttle}] contains a NaN: pass finite numbers in "
                "[-1, 1]; usually the parameters or the inputs of the policy are not finite"
            )
        race = self._course.race
        self._state = race.step(self._state, action)
        self._output = output = race.output(self._state)
        if self.render_mode == "human":
            self._show()
        reward, is_last, is_terminal, lap_time, *pose = output[SPEC.observation_size :].tolist()
        self._is_ended = is_last > 0
        info = self._info(pose, lap_time_steps=int(lap_time))
        observation = output[: SPEC.observation_size].copy()
        return observation, reward, is_terminal > 0, is_last > is_terminal, info

    def render(self) -> np.ndarray | None:
        """Returns the picture `[600, 800, 3]` uint8 in mode "rgb_array", None in other modes."""
        if self._course is None:
            raise gymnasium.error.ResetNeeded("call reset() before render(): no episode has begun")
        if self.render_mode != "rgb_array":
            return None
        return np.ascontiguousarray(self._renderer_of_track().rgb_array(self._scene()))

    def close(self) -> None:
        """Closes the window if there is one."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None

    def _show(self) -> None:
        import pygame

        if self._window is None:
            pygame.display.init()
            self._window = pygame.display.set_mode((grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX))
        pygame.event.pump()
        self._window.blit(self._renderer_of_track().draw(self._scene()), (0, 0))
        pygame.display.flip()

    def _renderer_of_track(self) -> "Renderer":
        from rlcar.sim.renderer import Renderer  # imports pygame, which only drawing needs

        if self._renderer is None or self._renderer[0] != self._track_seed:
            track = make_track(self._track_seed, self.config.track)
            self._renderer = (self._track_seed, Renderer(track))
        return self._renderer[1]

    def _scene(self) -> "Scene":
        from rlcar.sim.renderer import scene_of

        assert self._course is not None
        return scene_of(self._output[None], self._course.race.view(self._state), self.config)

    def _info(self, pose: list[float], lap_time_steps: int = 0) -> dict[str, Any]:
        x_px, y_px, speed, heading_deg, progress = pose
        return {
            "progress": progress,
            "x": x_px,
            "y": y_px,
            "speed": speed,
            "heading": heading_deg,
            "track_seed": self._track_seed,
            "lap_time": lap_time_steps,
        }


class _Course(NamedTuple):
    """A compiled race of one car over some tracks."""

    seeds: range
    race: PackedRace


def _course_of(config: RaceConfig, track_seed: int) -> _Course:
    """Returns the race over the track set that contains a track, or over this track alone."""
    for seeds in (set_seeds(track_set, config.track) for track_set in TRACK_SETS):
        if track_seed in seeds:
            return _compile(config, seeds)
    return _compile(config, range(track_seed, track_seed + 1))


@functools.lru_cache(maxsize=16)
def _compile(config: RaceConfig, seeds: range) -> _Course:
    """Compiles a race of one car over some tracks; calls with equal arguments share it."""
    race = make_race(config, make_pool(seeds, config.track), track_choice="fixed")
    return _Course(seeds, pack_race(race, 1))
