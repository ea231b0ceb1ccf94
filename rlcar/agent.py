"""The agent that a config names: a policy to drive with and a learner to improve it."""

from typing import NamedTuple

from rlcar.config import Config
from rlcar.dreamer import documented
from rlcar.dreamer.learner import make_learner
from rlcar.dreamer.policy import make_policy
from rlcar.types import Learner, Policy, Spec


class Agent(NamedTuple):
    """Everything the loop needs of an algorithm."""

    policy: Policy
    learner: Learner


def make_agent(config: Config, spec: Spec) -> Agent:
    """Builds the agent of `config.algorithm`."""
    if config.algorithm == "documented":
        return Agent(
            documented.make_policy(config.documented, spec),
            documented.make_learner(config.documented, spec),
        )
    return Agent(make_policy(config.dreamer, spec), make_learner(config.dreamer, spec))
