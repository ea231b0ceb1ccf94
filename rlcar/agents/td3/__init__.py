"""Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.q_learning.presets import q_learning_presets
from rlcar.agents.td3.settings import Td3Config

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[Td3Config]:
    from rlcar.agents.td3.learner import make_learner
    from rlcar.agents.td3.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[Td3Config]:
    from rlcar.agents.numpy_network import NumpyPolicyParts
    from rlcar.agents.td3.numpy_policy import array_shapes, make_numpy_network

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="td3",
    settings=Td3Config,
    # With a small noise on target actions: landing needs precise ones.
    presets=q_learning_presets("td3", learning_rate=3e-4, policy_delay=1, target_noise=0.05),
    default_preset="td3",
    environment_presets={"rlcar/Lander-v0": "lander-td3"},
    test_mode={"hidden_units": 32},
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
