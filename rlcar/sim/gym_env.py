"""The race as a Gymnasium environment: one car, NumPy, no JAX compiled."""

from typing import Any, Literal

import gymnasium
import numpy as np

from rlcar.config import RaceConfig, make_race_config
from rlcar.errors import ConfigError
from rlcar.sim.race import SPEC, Race, make_race
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
        self.render_mode = render_mode
        self._renderer: Any = None
        self._window: Any = None
        self._observation: Any = None
        if track_set not in TRACK_SETS:
            raise ConfigError(f"unknown track set {track_set!r}; there are {list(TRACK_SETS)}")
        self.config = make_race_config(world) if config is None else config
        self.observation_space = gymnasium.spaces.Box(0, 1, (SPEC.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_size,), np.float32)
        self._track_seeds = TRACK_SETS[track_set]
        self._race: Race | None = None
        self._race_track_seed = -1
        self._state: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the car at the start of the next track."""
        super().reset(seed=seed)
        drawn = self._track_seeds[int(self.np_random.integers(len(self._track_seeds)))]
        race = self._race_on(int((options or {}).get("track_seed", drawn)))
        # What the episode hides, as the grip of the grand prix, follows from this seed.
        race_seed = int(self.np_random.integers(2**31))
        self._state, time_step = race.reset(np.zeros(1, np.int32), race_seed)
        self._observation = time_step.observation
        if self.render_mode == "human":
            self._show()
        return np.asarray(time_step.observation[0]), self._info(race)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Drives one step; after the end of an episode, `reset` must be called."""
        if self._race is None or bool(self._state.is_ended[0]):
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        action = np.asarray(action, np.float32)
        if action.shape != (SPEC.action_size,):
            raise ValueError(f"the action has shape {action.shape}, not ({SPEC.action_size},)")
        action = action[None]
        if np.isnan(action).any():
            raise ValueError(
                f"the action {action[0].tolist()} holds a NaN: pass finite numbers in [-1, 1]; a "
                "NaN here usually means that the policy's parameters or inputs are not finite"
            )
        self._state, time_step, events = self._race.step(self._state, action)
        info = self._info(self._race)
        if events.lap_time_steps[0]:
            info["lap_time"] = int(events.lap_time_steps[0])
        terminated = bool(time_step.is_terminal[0])
        truncated = bool(time_step.is_last[0]) and not terminated
        reward = float(time_step.reward[0])
        self._observation = time_step.observation
        if self.render_mode == "human":
            self._show()
        observation = np.asarray(time_step.observation[0])
        return observation, reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Returns the frame `[600, 800, 3]` uint8 with "rgb_array"; "human" draws by itself."""
        if self._race is None:
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

        if self._renderer is None or self._renderer[0] != self._race_track_seed:
            track = make_track(self._race_track_seed, self.config.track)
            self._renderer = (self._race_track_seed, Renderer(track))
        return self._renderer[1]

    def _scene(self) -> Any:
        from rlcar.sim.renderer import scene_of

        assert self._race is not None
        return scene_of(self._observation, self._race.view(self._state), self.config)

    def _race_on(self, track_seed: int) -> Race:
        if self._race is None or track_seed != self._race_track_seed:
            pool = make_pool([track_seed], self.config.track)
            self._race = make_race(self.config, pool, xp=np, track_choice="fixed")
            self._race_track_seed = track_seed
        return self._race

    def _info(self, race: Race) -> dict[str, Any]:
        view = race.view(self._state)
        return {
            "progress": float(view.progress[0]),
            "x": float(view.x_px[0]),
            "y": float(view.y_px[0]),
            "speed": float(view.speed_px_per_step[0]),
            "heading": float(view.heading_deg[0]),
            "track_seed": self._race_track_seed,
        }
