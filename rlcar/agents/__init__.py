"""Learning algorithms: one folder and one descriptor each.

No other package names an algorithm: it looks the descriptor up here. Importing this package does
not import JAX.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlcar.agents import bc, cql, documented, dreamer, iql, ppo, sac, td3
from rlcar.agents.algorithm import Agent, Algorithm, require_support
from rlcar.settings.section import Section
from rlcar.types import Spec

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHM",
    "LEGACY_ALGORITHM",
    "Agent",
    "Algorithm",
    "AlgorithmName",
    "algorithm_of",
    "make_agent",
]

ALGORITHMS: dict[str, Algorithm[Any]] = {
    algorithm.name: algorithm
    for algorithm in (
        dreamer.ALGORITHM,
        documented.ALGORITHM,
        ppo.ALGORITHM,
        sac.ALGORITHM,
        td3.ALGORITHM,
        bc.ALGORITHM,
        cql.ALGORITHM,
        iql.ALGORITHM,
    )
}

DEFAULT_ALGORITHM = dreamer.ALGORITHM.name
# The algorithm of the models that `rlcar models import` reads from the first product's pickles.
LEGACY_ALGORITHM = documented.ALGORITHM.name

if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]


class _Config(Protocol):
    """The part of `rlcar.config.Config` that is read here; that package is built on this one."""

    @property
    def algorithm(self) -> str: ...

    @property
    def algorithm_settings(self) -> Section: ...


def algorithm_of(config: _Config) -> Algorithm[Any]:
    """Returns the descriptor of the algorithm that a config chooses."""
    return ALGORITHMS[config.algorithm]


def make_agent(config: _Config, spec: Spec) -> Agent:
    """Builds the agent that a config chooses.

    Raises ConfigError if the algorithm does not support the environment's observations or actions.
    """
    algorithm = algorithm_of(config)
    require_support(algorithm, spec, ALGORITHMS)
    return algorithm.make_agent(config.algorithm_settings, spec)
