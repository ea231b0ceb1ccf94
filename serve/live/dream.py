"""The dream beside the road: the next steps as a run's world model predicts them."""

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
from serve.live.run_follower import RunFollower
from serve.live.wire import DREAM_COLUMNS

DREAM_STEPS = 30


class LiveDreamer:
    """Tracks a car with a world model, whoever drives, and predicts the steps that follow."""

    def __init__(self, config: Config, params: Params):
        """Raises UserError if the config's algorithm has no world model."""
        self.config = config
        self._support = _require_support(config)
        policy = make_agent(config, SPEC).policy
        self._act = jax.jit(policy.act, static_argnums=4)
        self._imagine = self._support.make_dreamer(config.algorithm_settings, SPEC).imagine
        self._carry = policy.initial(1)
        self._key = jax.random.PRNGKey(0)
        self.set_params(params)

    def set_params(self, params: Params) -> None:
        """Continues with newer parameters of the same world model."""
        params = jax.tree.map(jax.numpy.asarray, params)
        self._params, self._policy_params = params, self._support.policy_params_of(params)

    def observe(self, time_step: TimeStep) -> None:
        """Updates the belief with an observation."""
        self._carry, _ = self._act(self._policy_params, self._carry, time_step, self._key, False)

    def record_action(self, action: np.ndarray) -> None:
        """Records the action that the car really took, for the next observation."""
        taken = np.asarray(action, np.float32)[None]
        self._carry = self._support.with_action(self._carry, taken)

    def dream(self, car: Car) -> np.ndarray:
        """Predicts the next steps, `[DREAM_STEPS, DREAM_COLUMNS]` as `serve.live.wire` lists them.

        The model predicts readings, not positions. The simulator computes where the dreamt actions
        would really lead and what the rays would read there, so the page can draw both.
        """
        belief = self._support.belief_of(self._carry)
        dream = self._imagine(self._params, belief, DREAM_STEPS, None)
        observation, reward, continues, action = (np.asarray(part)[:, 0] for part in dream)
        rows = np.full((DREAM_STEPS, DREAM_COLUMNS), np.nan, np.float32)
        real = car.preview(action)
        rows[:, :3], rows[:, 3 + RAYS : 3 + 2 * RAYS] = real[:, :3], real[:, 3:]
        rows[:, 3 : 3 + RAYS] = np.clip(observation[:, :RAYS], 0.0, 1.0)
        rows[:, -3] = np.clip(observation[:, RAYS], 0.0, 1.0)
        rows[:, -2], rows[:, -1] = reward, np.cumprod(continues)
        return rows


def _require_support(config: Config) -> DreamSupport:
    load_dream_support = algorithm_of(config).load_dream_support
    if load_dream_support is None:
        raise UserError(f"the algorithm {config.algorithm} has no world model to dream with")
    return load_dream_support()


class RunDreams:
    """Loads the newest world model of a run; its method blocks on the disk."""

    def __init__(self, follower: RunFollower):
        self._follower = follower
        self._env_steps = -1

    def newest(self) -> tuple[Config, Params] | None:
        """Returns a world model that is newer than the last one returned, or None."""
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
    """Makes a dreamer and runs it once, so that everything is compiled. Blocks for seconds."""
    dreamer = LiveDreamer(config, params)
    dreamer.observe(car.time_step)
    dreamer.record_action(np.zeros(2))
    dreamer.dream(car)
    return dreamer
