"""The race as a Gymnasium environment: one car in one compiled call, NumPy in and out."""

import functools
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import ConfigError
from rlcar.sim.packed import PackedRace, pack_race
from rlcar.sim.race import SPEC, make_race
from rlcar.track import TRACK_SETS, grid, make_pool, make_track


class RaceEnv(gymnasium.Env):
    """One car on a closed road it has not seen before, in one of the worlds of `rlcar.config`.

    In "classic" steering turns the car on the spot and the road is 80 px wide. In "grand-prix" (or
    "grand-prix-1" to "-5") a single-track car understeers past its grip, roads are narrow and hold
    obstacles, actions are delayed, sensors noisy, and a second car drives along; how much of each
    is drawn anew for each episode and not observed. `config` overrules `world`.

    Observation: `Box(0, 1, (6,), float32)`: the distances to the nearest road edge or obstacle at
    -45, -22.5, 0, 22.5 and 45 degrees from the heading, over the range of 150 px (1 = nothing in
    range; to the left is positive), then speed / top speed (5 px/step in the classic world).

    Action: `Box(-1, 1, (2,), float32)`: steering (1 turns left, 5 degrees a step) and throttle
    (1 adds 0.2 px/step, less 1 % drag). Out-of-range values are clipped, a NaN is a ValueError.

    Reward, `float`: by `config.reward`. "progress" pays 1,000 for a lap, in proportion to the
    signed advance, less 0.1 a step, less 10 for a crash. "documented" pays speed + 0.1 a step
    on the road, 5 + 30 / steps at each newly reached tenth of the lap, and -10 for a crash.

    Terminated: the car's centre is more than the road's half-width from the centre line or touches
    an obstacle (a crash), or it has driven `config.laps` laps. Truncated: `config.time_limit_steps`
    are over. Never both.

    Info: `progress` (0..1 of the lap), `x` and `y` (px, y down), `speed` (px/step), `heading`
    (degrees, 90 points up), `track_seed`, and, at a full lap only, `lap_time` (steps).

    `reset(seed=...)` fixes the whole sequence of tracks that this and the following resets draw
    from the track set; `reset(options={"track_seed": 7})` drives that track instead.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 30}

    def __init__(
        self,
        world: str = "classic",
        config: RaceConfig | None = None,
        track_set: Literal["train", "validation", "test", "circuits"] = "train",
        render_mode: Literal["human", "rgb_array"] | None = None,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"unknown render_mode {render_mode!r}; there are {self.metadata['render_modes']}"
            )
        disable_async_dispatch()
        self.render_mode = render_mode
        self._renderer: Any = None
        self._window: Any = None
        self._told: Any = None  # what the last call said, in `PackedRace`'s order
        if track_set not in TRACK_SETS:
            raise ConfigError(f"unknown track set {track_set!r}; there are {list(TRACK_SETS)}")
        self.config = make_race_config(world) if config is None else config
        self.observation_space = gymnasium.spaces.Box(0, 1, (SPEC.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_size,), np.float32)
        self._track_set = track_set
        self._track_seed = -1
        self._drive: _Drive | None = None
        self._state: Any = None
        self._is_ended = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the car at the start of the next track."""
        super().reset(seed=seed)
        seeds = TRACK_SETS[self._track_set]
        drawn = seeds[int(self.np_random.integers(len(seeds)))]
        self._track_seed = int((options or {}).get("track_seed", drawn))
        self._drive = _drive_on(self.config, self._track_seed)
        # What the episode hides, as the grip of the grand prix, follows from this seed.
        race_seed = np.int32(self.np_random.integers(2**31))
        car = np.array([self._drive.seeds.index(self._track_seed)], np.int32)
        race = self._drive.race
        self._state = race.reset(car, race_seed)
        self._told = told = race.told(self._state)
        self._is_ended = False
        if self.render_mode == "human":
            self._show()
        seen = told[-5:].tolist()
        return told[: SPEC.observation_size].copy(), self._info(*seen)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Drives one step; after the end of an episode, `reset` must be called."""
        if self._drive is None or self._is_ended:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        action = np.asarray(action, np.float32)
        if action.shape != (SPEC.action_size,):
            raise ValueError(f"the action has shape {action.shape}, not ({SPEC.action_size},)")
        steering, throttle = action.tolist()
        if steering != steering or throttle != throttle:  # np.isnan takes 1.4 us of a step's 18
            raise ValueError(
                f"the action [{steering}, {throttle}] holds a NaN: pass finite numbers in [-1, 1]; "
                "a NaN here usually means that the policy's parameters or inputs are not finite"
            )
        race = self._drive.race
        self._state = race.step(self._state, action)
        self._told = told = race.told(self._state)
        if self.render_mode == "human":
            self._show()
        reward, is_last, is_terminal, lap_time, *seen = told[SPEC.observation_size :].tolist()
        self._is_ended = is_last > 0
        info = self._info(*seen)
        if lap_time:
            info["lap_time"] = int(lap_time)
        observation = told[: SPEC.observation_size].copy()
        return observation, reward, is_terminal > 0, is_last > is_terminal, info

    def render(self) -> np.ndarray | None:
        """Returns the frame `[600, 800, 3]` uint8 with "rgb_array"; "human" draws by itself."""
        if self._drive is None:
            raise gymnasium.error.ResetNeeded("call reset() before render(): there is no race yet")
        if self.render_mode != "rgb_array":
            return None
        return np.ascontiguousarray(self._draw().rgb_array(self._scene()))

    def close(self) -> None:
        """Closes the window, if there is one."""
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
        self._window.blit(self._draw().draw(self._scene()), (0, 0))
        pygame.display.flip()

    def _draw(self) -> Any:
        from rlcar.sim.renderer import Renderer  # pygame only for those who look

        if self._renderer is None or self._renderer[0] != self._track_seed:
            track = make_track(self._track_seed, self.config.track)
            self._renderer = (self._track_seed, Renderer(track))
        return self._renderer[1]

    def _scene(self) -> Any:
        from rlcar.sim.renderer import scene_of

        assert self._drive is not None
        return scene_of(self._told[None], self._drive.race.view(self._state), self.config)

    def _info(
        self, x_px: float, y_px: float, speed: float, heading_deg: float, progress: float
    ) -> dict[str, Any]:
        return {
            "progress": progress,
            "x": x_px,
            "y": y_px,
            "speed": speed,
            "heading": heading_deg,
            "track_seed": self._track_seed,
        }


class _Drive(NamedTuple):
    """One car of a race over some tracks, compiled."""

    seeds: range
    race: PackedRace


def _drive_on(config: RaceConfig, track_seed: int) -> _Drive:
    """Returns the race over the named set that holds a track, else over this track alone."""
    for seeds in TRACK_SETS.values():
        if track_seed in seeds:
            return _compile(config, seeds)
    return _compile(config, range(track_seed, track_seed + 1))


@functools.lru_cache(maxsize=16)
def _compile(config: RaceConfig, seeds: range) -> _Drive:
    """Compiles a race of one car over all tracks of a set; equal arguments share it."""
    race = make_race(config, make_pool(seeds, config.track), track_choice="fixed")
    return _Drive(seeds, pack_race(race, 1))
