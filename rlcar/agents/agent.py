"""The agent that a config names: a policy to drive with and a learner to improve it."""

from typing import NamedTuple

from rlcar.agents.documented import agent as documented
from rlcar.agents.dreamer import learner as dreamer_learner
from rlcar.agents.dreamer import policy as dreamer_policy
from rlcar.agents.ppo import learner as ppo_learner
from rlcar.agents.ppo import policy as ppo_policy
from rlcar.agents.sac import learner as sac_learner
from rlcar.agents.sac import policy as sac_policy
from rlcar.agents.td3 import learner as td3_learner
from rlcar.agents.td3 import policy as td3_policy
from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.types import Learner, Policy, Spec

_CONTINUOUS = ("documented", "sac", "td3")


class Agent(NamedTuple):
    """Everything the loop needs of an algorithm."""

    policy: Policy
    learner: Learner


def make_agent(config: Config, spec: Spec) -> Agent:
    """Builds the agent of `config.algorithm`; raises ConfigError for what that cannot do."""
    if spec.image_shape is not None and config.algorithm != "dreamer":
        raise ConfigError(
            f"{config.environment.id} gives images, and {config.algorithm} sees vectors alone: "
            "train it with --algorithm dreamer"
        )
    if spec.is_discrete and config.algorithm in _CONTINUOUS:
        raise ConfigError(
            f"{config.algorithm} cannot choose among discrete actions: train with --algorithm "
            "dreamer or ppo"
        )
    if config.algorithm == "documented":
        plain = config.documented
        return Agent(documented.make_policy(plain, spec), documented.make_learner(plain, spec))
    policy, learner = {
        "dreamer": (dreamer_policy, dreamer_learner),
        "ppo": (ppo_policy, ppo_learner),
        "sac": (sac_policy, sac_learner),
        "td3": (td3_policy, td3_learner),
    }[config.algorithm]
    settings = getattr(config, config.algorithm)
    return Agent(policy.make_policy(settings, spec), learner.make_learner(settings, spec))
