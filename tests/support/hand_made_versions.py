"""Published versions whose weights are set by hand, so that they drive without any training."""

from pathlib import Path

import jax
import numpy as np

from benchmarks.drawn_model import untrained_metadata
from rlcar.agents import make_agent
from rlcar.config import Config, make_config
from rlcar.config.race import TrackConfig
from rlcar.envs.schema import schema_of
from rlcar.evaluation.environment import spec_of
from rlcar.registry import Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC
from rlcar.storage.arrays import leaf_name

_GAIN = 4.0  # steering for each unit by which the two left rays are longer than the two right ones


def hand_made_config(world: str = "classic") -> Config:
    """Returns the config of a small policy without memory."""
    return make_config(mode="test", world=world, overrides=["algorithm=td3"])


def publish_follower(
    folder: Path,
    throttle: float,
    *,
    gain: float = _GAIN,
    world: str = "classic",
    track: TrackConfig | None = None,
    alias: str | None = None,
) -> int:
    """Adds a version that steers to the side with more room, always with one throttle.

    A throttle of 0.15 drives at 3 px/step and one of 0.2 at 4 px/step, where the drag balances it.
    Without any `gain` it drives straight on, and crashes. It says that it was trained in `world`,
    on the tracks of `track` if that is given.
    """
    config = hand_made_config(world)
    if track is not None:
        race = config.race.model_copy(update={"track": track})
        config = config.model_copy(update={"race": race})
    arrays = {
        name: np.zeros(shape, np.float32) for name, shape in policy_shapes(config, SPEC).items()
    }
    first, second, last = (arrays[f"mlp/~/linear_{layer}.w"] for layer in range(3))
    # Rays are ordered from right to left. Two units hold the positive and the negative part.
    side = np.array([-1.0, -1.0, 0.0, 1.0, 1.0, 0.0], np.float32)
    first[:, 0], first[:, 1] = side, -side
    second[0, 0] = second[1, 1] = 1.0
    last[0, 0], last[1, 0] = gain, -gain
    arrays["mlp/~/linear_2.b"][1] = np.arctanh(throttle)
    registry = Registry(folder)
    metadata = untrained_metadata(config, f"follows the road with throttle {throttle:g}")
    number = registry.add(arrays, metadata).number
    if alias is not None:
        registry.promote(number, alias)
    return number


def publish_constant(folder: Path, environment: str, action: float) -> int:
    """Adds a version that always does the same in an environment of Gymnasium."""
    config = make_config(mode="test", environment=environment, overrides=["algorithm=td3"])
    spec = spec_of(config)
    state = jax.eval_shape(make_agent(config, spec).learner.init, 0)
    policy = make_agent(config, spec).learner.policy_params(state)
    leaves = jax.tree_util.tree_flatten_with_path(policy)[0]
    arrays = {leaf_name(path): np.zeros(leaf.shape, np.float32) for path, leaf in leaves}
    arrays["mlp/~/linear_2.b"][:] = np.arctanh(action)
    observation, described = schema_of(config, spec)
    metadata = untrained_metadata(config, f"always {action:g}")
    metadata |= {"observation": observation, "action": described}
    return Registry(folder).add(arrays, metadata).number
