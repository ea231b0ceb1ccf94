"""The plain documented agent: five small networks, without recurrence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm, Tree
from rlcar.agents.documented.settings import DocumentedConfig

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts

_PRESET: Tree = {
    "algorithm": "documented",
    # An update takes a millisecond, so many are affordable.
    "replay": {"batch_size": 32, "batch_length": 16, "samples_per_insert": 64.0},
    "training": {"env_steps": 65_536, "evaluate_every_env_steps": 4096},
}


def _load_agent() -> AgentParts[DocumentedConfig]:
    from rlcar.agents.documented.agent import make_learner, make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[DocumentedConfig]:
    from rlcar.agents.documented.numpy_policy import array_shapes, make_numpy_network
    from rlcar.agents.numpy_network import NumpyPolicyParts

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="documented",
    settings=DocumentedConfig,
    presets={"documented": _PRESET},
    default_preset="documented",
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
