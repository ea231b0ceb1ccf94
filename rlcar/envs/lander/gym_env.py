"""The lander as a Gymnasium environment: one lander, one compiled call for each step."""

import functools
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import jax
import numpy as np
import pydantic

from rlcar.devices.selection import disable_async_dispatch
from rlcar.envs.lander.dynamics import ACTION_SIZE
from rlcar.envs.lander.environment import LanderState, make_lander
from rlcar.envs.lander.observation import box_of
from rlcar.envs.lander.settings import LanderSettings
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain
from rlcar.types import CompiledEnvironment

if TYPE_CHECKING:
    import pygame

    from rlcar.envs.lander.renderer import LanderRenderer


class LanderEnv(gymnasium.Env):
    """A lander must touch down softly and upright on a pad on the Moon, with limited fuel and time.

    `gymnasium.make("rlcar/Lander-v0", scenario="stage-1", **settings)` makes it; the settings are
    those of `LanderSettings`. An env step takes 0.1 s.

    World: x and y are horizontal and z is up; the pad, of 20 m radius, is flat ground around the
    origin. Each episode draws one of several rough terrains. The lander is a rigid body with six
    degrees of freedom (see `rlcar.envs.lander.dynamics`): 900 kg plus up to 100 kg of fuel, one
    engine with up to 4,500 N and a specific impulse of 300 s, and three reaction torques.

    Observation: `Box(float32)` with 19 entries and one for each ray of the lidar, 8 by default.
    log(x) stands for the logarithm log(1 + |x| / 10 m) / 5 with the sign of x, and log(v) for
    log(1 + |v| / 1 m/s) / 4 with the sign of v.

    | Index    | Meaning                                                  | Unit of 1.0 | Range   |
    | -------- | -------------------------------------------------------- | ----------- | ------- |
    | 0 to 2   | log(position x, y, z) of the centre of mass from the pad | 1,474 m     | -4 to 4 |
    | 3        | log(altitude) above the terrain                          | 1,474 m     | -4 to 4 |
    | 4 to 6   | log(velocity x, y, z)                                    | 53.6 m/s    | -4 to 4 |
    | 7        | attitude quaternion (body to world), w                   | 1           | 0 to 1  |
    | 8 to 10  | attitude quaternion, x, y, z                             | 0.25        | -4 to 4 |
    | 11 to 13 | rotation rates about the body's x, y, z axes             | 0.5 rad/s   | -4 to 4 |
    | 14       | fuel                                                     | 100 kg      | 0 to 1  |
    | 15       | time until the time limit                                | 150 s       | -4 to 4 |
    | 16 to 18 | log(velocity error x, y, z): velocity minus the target   | 53.6 m/s    | -4 to 4 |
    |          | velocity of `rlcar.envs.lander.guidance_field`           |             |         |
    | 19 to 26 | lidar: distance to the terrain, 45 degrees below the     | 200 m       | 0 to 1  |
    |          | horizon, at azimuths 0, 45, ..., 315 degrees from x      |             |         |

    Action: `Box(-1, 1, (6,), float32)`. Values out of range are clipped; a NaN is a ValueError.

    | Index  | Meaning                                   | Effect of 1    | Effect of -1       |
    | ------ | ----------------------------------------- | -------------- | ------------------ |
    | 0      | throttle; 0 carries the weight with half  | 4,500 N        | off                |
    |        | a tank (1,541 N)                          |                |                    |
    | 1      | gimbal: thrust turns by 0.025 rad in the  | towards x      | towards -x         |
    |        | x-z plane                                 |                |                    |
    | 2      | gimbal: thrust turns by 0.025 rad in the  | towards y      | towards -y         |
    |        | y-z plane                                 |                |                    |
    | 3 to 5 | torque about the body's x, y, z axes      | 150, 150, and  | the same, negative |
    |        |                                           | 75 N m         |                    |

    Reward:

    | Event                                     | Reward                                           |
    | ----------------------------------------- | ------------------------------------------------ |
    | landing                                   | 1,000 at 1 m/s or slower, falling to 0 at 3 m/s, |
    |                                           | and 200 times the share of the fuel that is left |
    | every other contact with the ground       | -1,000 x / (1 + x), where x is the speed over    |
    |                                           | 3 m/s plus the distance from the pad over 20 m   |
    | out of bounds, or out of time             | -1,000                                           |
    | each metre that is closer to the pad than | its share of 500 times the quality of flight, at |
    | ever before in the episode                | most 5 for each step                             |

    The quality, 0 to 1, compares the velocity with a target velocity and the direction of the
    thrust with the one that leads to it, and is less for a lander that is twisted or turning (see
    `rlcar.envs.lander.rewards`).

    End of an episode: always `terminated`, because the time left is part of the observation.
    `info["reason"]` of the last step says which it was:

    | Reason          | Meaning                                                                    |
    | --------------- | -------------------------------------------------------------------------- |
    | "landed"        | contact on the pad, below 3 m/s, within 15 degrees of upright, at most 0.5 |
    |                 | rad/s, with the centre of mass below 5 m: the only success                 |
    | "too_fast"      | contact on the pad at 3 m/s or more                                        |
    | "tilted"        | contact on the pad, slow enough but not upright, or turning too fast       |
    | "missed_pad"    | contact beside the pad                                                     |
    | "out_of_bounds" | too far away or too high for the scenario                                  |
    | "time_limit"    | neither within the time limit                                              |

    The last `info` also contains `is_success` and the figures `distance_m`, `east_m`, `north_m`,
    `touchdown_speed_m_s`, `fuel_fraction`, `is_soft` (1 below 2 m/s) and `smoothness` (mean squared
    change of the action).

    Reset: `reset(seed=...)` determines this episode and all that follow.

    Versions: v0 is the only version. Like the race's environments, making one turns off JAX's
    asynchronous dispatch on the CPU for the process.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: Literal["human", "rgb_array"] | None = None, **settings: Any):
        """Makes the environment; raises ConfigError for settings that are not valid."""
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"unknown render_mode {render_mode!r}: choose one of "
                f"{self.metadata['render_modes']} or None"
            )
        self.settings = settings_of(settings)
        self.render_mode = render_mode
        disable_async_dispatch()
        self._functions = compiled(self.settings)
        self.observation_space = box_of(self.settings)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._state: LanderState | None = None
        self._action = np.zeros(ACTION_SIZE, np.float32)
        self._is_ended = True
        self._renderer: LanderRenderer | None = None
        self._window: pygame.Surface | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts the next episode."""
        super().reset(seed=seed)
        word = np.int32(self.np_random.integers(2**31))
        self._state, time_step = self._functions.reset(np.zeros(1, np.int32), word)
        self._action, self._is_ended = np.full(ACTION_SIZE, -1.0, np.float32), False
        if self.render_mode == "human":
            self._show()
        return np.array(time_step.observation[0]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Flies one step. After the end of an episode call `reset` first."""
        if self._is_ended:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        action = np.asarray(action, np.float32)
        if action.shape != (ACTION_SIZE,):
            raise ValueError(
                f"the action has the shape {action.shape}: pass an array of the shape "
                f"({ACTION_SIZE},)"
            )
        if np.isnan(action).any():
            raise ValueError(
                f"the action {action.tolist()} contains a NaN: pass finite numbers in [-1, 1]; "
                "usually the parameters or the inputs of the policy are not finite"
            )
        self._action = action
        self._state, time_step, end = self._functions.step(self._state, action[None])
        self._is_ended = bool(time_step.is_last[0])
        if self.render_mode == "human":
            self._show()
        info: dict[str, Any] = {}
        if self._is_ended:
            info = {
                "reason": self._functions.reasons[int(end.reason[0])],
                "is_success": bool(end.is_success[0]),
                **{name: float(value[0]) for name, value in end.figures.items()},
            }
        observation, reward = np.array(time_step.observation[0]), float(time_step.reward[0])
        return observation, reward, self._is_ended, False, info

    def render(self) -> np.ndarray | None:
        """Returns the picture `[480, 640, 3]` uint8 in mode "rgb_array", None in other modes."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() before render(): no episode has begun")
        if self.render_mode != "rgb_array":
            return None
        return self._drawing().rgb_array(self._state, self._action)

    def close(self) -> None:
        """Closes the window if there is one."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None

    def _show(self) -> None:
        import pygame

        assert self._state is not None
        picture = self._drawing().draw(self._state, self._action)
        if self._window is None:
            pygame.display.init()
            self._window = pygame.display.set_mode(picture.get_size())
        pygame.event.pump()
        self._window.blit(picture, (0, 0))
        pygame.display.flip()

    def _drawing(self) -> "LanderRenderer":
        from rlcar.envs.lander.renderer import LanderRenderer  # imports pygame

        if self._renderer is None:
            self._renderer = LanderRenderer(self.settings)
        return self._renderer


def settings_of(arguments: dict[str, Any]) -> LanderSettings:
    """Returns the settings of keyword arguments; raises ConfigError with one sentence."""
    try:
        return LanderSettings(**arguments)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, LanderSettings)) from error


@functools.lru_cache(maxsize=16)
def compiled(settings: LanderSettings) -> CompiledEnvironment:
    """Returns the compiled functions; environments with equal settings share them."""
    functions = make_lander(settings)
    return functions._replace(reset=jax.jit(functions.reset), step=jax.jit(functions.step))
