"""The dream beside the road: what a run's world model expects of the next steps."""

import jax
import numpy as np

from rlcar.agents import algorithm_of, make_agent
from rlcar.agents.dreams import DreamSupport
from rlcar.config import Config, load_config
from rlcar.errors import UserError
from rlcar.sim import SPEC
from rlcar.sim.sensors import RAYS
from rlcar.storage import checkpoint
from rlcar.types import Params, TimeStep
from serve.live.car import Car
from serve.live.follow import RunFollower
from serve.live.wire import DREAM_COLUMNS

DREAM_STEPS = 30


class LiveDreamer:
    """Watches a car through one world model, whoever drives, and dreams on from what it saw."""

    def __init__(self, config: Config, params: Params):
        """Raises UserError if the config's algorithm has no world model."""
        self.config = config
        self._support = _require_support(config)
        policy = make_agent(config, SPEC).policy
        self._act = jax.jit(policy.act, static_argnums=4)
        self._imagine = self._support.make_dreamer(config.algorithm_settings, SPEC).imagine
        self._carry = policy.initial(1)
        self._key = jax.random.PRNGKey(0)
        self.change(params)

    def change(self, params: Params) -> None:
        """Goes on with newer parameters of the same world model."""
        params = jax.tree.map(jax.numpy.asarray, params)
        self._params, self._policy_params = params, self._support.policy_params_of(params)

    def see(self, time_step: TimeStep) -> None:
        """Takes in an observation."""
        self._carry, _ = self._act(self._policy_params, self._carry, time_step, self._key, False)

    def took(self, action: np.ndarray) -> None:
        """Notes what was really done."""
        taken = np.asarray(action, np.float32)[None]
        self._carry = self._support.with_action(self._carry, taken)

    def dream(self, car: Car) -> np.ndarray:
        """Dreams from here on; `[DREAM_STEPS, DREAM_COLUMNS]`, as `live_wire` lists them.

        The model dreams readings, not places. Where the dreamt actions would really lead, and what
        would be read there, is the simulator's answer, so that both can be drawn on the road.
        """
        belief = self._support.belief_of(self._carry)
        told = self._imagine(self._params, belief, DREAM_STEPS, None)
        observation, reward, goes_on, action = (np.asarray(part)[:, 0] for part in told)
        rows = np.full((DREAM_STEPS, DREAM_COLUMNS), np.nan, np.float32)
        real = car.follow(action)
        rows[:, :3], rows[:, 3 + RAYS : 3 + 2 * RAYS] = real[:, :3], real[:, 3:]
        rows[:, 3 : 3 + RAYS] = np.clip(observation[:, :RAYS], 0.0, 1.0)
        rows[:, -3] = np.clip(observation[:, RAYS], 0.0, 1.0)
        rows[:, -2], rows[:, -1] = reward, np.cumprod(goes_on)
        return rows


def _require_support(config: Config) -> DreamSupport:
    load_dream_support = algorithm_of(config).load_dream_support
    if load_dream_support is None:
        raise UserError(f"{config.algorithm} has no world model to dream")
    return load_dream_support()


class RunDreams:
    """Finds the newest world model of a run; its method blocks on the disk."""

    def __init__(self, follower: RunFollower):
        self._follower = follower
        self._env_steps = -1

    def newest(self) -> tuple[Config, Params] | None:
        """Returns a world model that is newer than the last one returned, if there is one."""
        save = self._follower.latest("checkpoints")
        if save is None or save.env_steps <= self._env_steps:
            return None
        config = load_config(checkpoint.config_path(save))
        self._env_steps = save.env_steps
        load_dream_support = algorithm_of(config).load_dream_support
        if load_dream_support is None or not config.is_race:
            return None
        learner = make_agent(config, SPEC).learner
        like = jax.eval_shape(lambda: learner.init(config.seed))
        state = checkpoint.load(save, like, part="learner")
        return config, load_dream_support().params_of(state)


def open_dreamer(config: Config, params: Params, car: Car) -> LiveDreamer:
    """Makes an eye and lets it dream once, so that everything is compiled. Blocks for seconds."""
    eye = LiveDreamer(config, params)
    eye.see(car.time_step)
    eye.took(np.zeros(2))
    eye.dream(car)
    return eye
