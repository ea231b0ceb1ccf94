"""The race as a Gymnasium environment: one car in one compiled call, NumPy in and out."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import RaceConfig, make_race_config
from rlcar.errors import ConfigError
from rlcar.sim.race import SPEC, make_race
from rlcar.sim.state import CarView, RaceState
from rlcar.track import TRACK_SETS, grid, make_pool, make_track
from rlcar.types import TimeStep


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
        self._told: Any = None  # what the last call said, as `_compile` packs it
        if track_set not in TRACK_SETS:
            raise ConfigError(f"unknown track set {track_set!r}; there are {list(TRACK_SETS)}")
        self.config = make_race_config(world) if config is None else config
        self.observation_space = gymnasium.spaces.Box(0, 1, (SPEC.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_size,), np.float32)
        self._track_set = track_set
        self._track_seed = -1
        self._race: _CompiledRace | None = None
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
        self._race = _race_with(self.config, self._track_seed)
        # What the episode hides, as the grip of the grand prix, follows from this seed.
        race_seed = np.int32(self.np_random.integers(2**31))
        car = np.array([self._race.seeds.index(self._track_seed)], np.int32)
        self._state, told = self._race.reset(car, race_seed)
        self._told = told = np.asarray(told)
        self._is_ended = False
        if self.render_mode == "human":
            self._show()
        return told[: SPEC.observation_size], self._info(told)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Drives one step; after the end of an episode, `reset` must be called."""
        if self._race is None or self._is_ended:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        action = np.asarray(action, np.float32)
        if action.shape != (SPEC.action_size,):
            raise ValueError(f"the action has shape {action.shape}, not ({SPEC.action_size},)")
        if np.isnan(action).any():
            raise ValueError(
                f"the action {action.tolist()} holds a NaN: pass finite numbers in [-1, 1]; a NaN "
                "here usually means that the policy's parameters or inputs are not finite"
            )
        self._state, told = self._race.step(self._state, action)
        self._told = told = np.asarray(told)
        if self.render_mode == "human":
            self._show()
        reward, is_last, is_terminal, lap_time = told[SPEC.observation_size :].tolist()[:4]
        self._is_ended = bool(is_last)
        info = self._info(told)
        if lap_time:
            info["lap_time"] = int(lap_time)
        terminated = bool(is_terminal)
        observation = told[: SPEC.observation_size]
        return observation, reward, terminated, self._is_ended and not terminated, info

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

        if self._renderer is None or self._renderer[0] != self._track_seed:
            track = make_track(self._track_seed, self.config.track)
            self._renderer = (self._track_seed, Renderer(track))
        return self._renderer[1]

    def _scene(self) -> Any:
        from rlcar.sim.renderer import scene_of

        assert self._race is not None
        return scene_of(self._told[None], self._race.view(self._state), self.config)

    def _info(self, told: np.ndarray) -> dict[str, Any]:
        x_px, y_px, speed, heading_deg, progress = told[-5:].tolist()
        return {
            "progress": progress,
            "x": x_px,
            "y": y_px,
            "speed": speed,
            "heading": heading_deg,
            "track_seed": self._track_seed,
        }


class _CompiledRace(NamedTuple):
    """One car of a race, compiled; its state is one array, and so is what a step tells.

    A call of a compiled function costs by the number of its arrays, here more than the race itself.
    """

    seeds: range
    reset: Callable[[np.ndarray, np.int32], tuple[Any, Any]]
    step: Callable[[Any, np.ndarray], tuple[Any, Any]]
    view: Callable[[Any], CarView]


def _race_with(config: RaceConfig, track_seed: int) -> _CompiledRace:
    """Returns the race over the named set that holds a track, else over this track alone."""
    for seeds in TRACK_SETS.values():
        if track_seed in seeds:
            return _compile(config, seeds)
    return _compile(config, range(track_seed, track_seed + 1))


@functools.lru_cache(maxsize=16)
def _compile(config: RaceConfig, seeds: range) -> _CompiledRace:
    """Compiles a race of one car over all tracks of a set; equal arguments share it."""
    race = make_race(config, make_pool(seeds, config.track), track_choice="fixed")
    like = jax.eval_shape(race.reset, jax.ShapeDtypeStruct((1,), np.int32), 0)[0]
    leaves, structure = jax.tree.flatten(like)

    def pack(state: RaceState) -> Any:
        return jnp.concatenate([leaf.astype(jnp.int32) for leaf in jax.tree.leaves(state)])

    def unpack(packed: Any) -> RaceState:
        parts = [packed[i : i + 1].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        state: RaceState = jax.tree.unflatten(structure, parts)
        return state

    def tell(state: RaceState, time_step: TimeStep, lap_time_steps: Any) -> Any:
        view = race.view(state)
        words = (time_step.reward, time_step.is_last, time_step.is_terminal, lap_time_steps)
        seen = (view.x_px, view.y_px, view.speed_px_per_step, view.heading_deg, view.progress)
        parts = [jnp.asarray(word).astype(jnp.float32) for word in (*words, *seen)]
        return jnp.concatenate([time_step.observation[0], *parts])

    def reset(car: Any, seed: Any) -> tuple[Any, Any]:
        state, time_step = race.reset(car, seed)
        return pack(state), tell(state, time_step, jnp.zeros(1))

    def step(packed: Any, action: Any) -> tuple[Any, Any]:
        state, time_step, events = race.step(unpack(packed), action[None])
        return pack(state), tell(state, time_step, events.lap_time_steps)

    return _CompiledRace(
        seeds, jax.jit(reset), jax.jit(step), lambda packed: race.view(unpack(packed))
    )
