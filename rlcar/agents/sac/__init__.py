"""Soft actor-critic (Haarnoja et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.q_learning.presets import q_learning_presets
from rlcar.agents.sac.settings import SacConfig

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[SacConfig]:
    from rlcar.agents.sac.learner import make_learner
    from rlcar.agents.sac.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[SacConfig]:
    from rlcar.agents.numpy_network import NumpyPolicyParts
    from rlcar.agents.sac.numpy_policy import array_shapes, make_numpy_network

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="sac",
    settings=SacConfig,
    presets=q_learning_presets("sac", initial_temperature=0.01),
    default_preset="sac",
    environment_presets={"rlcar/Lander-v0": "lander-sac"},
    test_mode={"hidden_units": 32},
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
