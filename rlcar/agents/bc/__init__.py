"""Behavioural cloning (Pomerleau 1991)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.bc.settings import BcConfig
from rlcar.agents.offline_learning.presets import RECORDED

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[BcConfig]:
    from rlcar.agents.bc.learner import make_learner
    from rlcar.agents.bc.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[BcConfig]:
    from rlcar.agents.bc.numpy_policy import array_shapes, make_numpy_network
    from rlcar.agents.numpy_network import NumpyPolicyParts

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="bc",
    settings=BcConfig,
    presets={"bc": {"algorithm": "bc", **RECORDED}},
    default_preset="bc",
    test_mode={"hidden_units": 32},
    supports_discrete_actions=True,
    normalises_observations=True,
    learns_offline=True,
    learns_online=False,
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
