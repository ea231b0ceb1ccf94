"""Implicit Q-learning (Kostrikov et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.iql.settings import IqlConfig
from rlcar.agents.offline_learning.presets import FAR_SIGHTED, FINE_TUNING, RECORDED

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[IqlConfig]:
    from rlcar.agents.iql.learner import make_learner
    from rlcar.agents.iql.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[IqlConfig]:
    from rlcar.agents.iql.numpy_policy import array_shapes, make_numpy_network
    from rlcar.agents.numpy_network import NumpyPolicyParts

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="iql",
    settings=IqlConfig,
    presets={
        "iql": {"algorithm": "iql", **RECORDED},
        "iql-grand-prix": {"algorithm": "iql", "iql": FAR_SIGHTED, **RECORDED},
    },
    default_preset="iql",
    grand_prix_preset="iql-grand-prix",
    test_mode={"hidden_units": 32},
    supports_discrete_actions=True,
    normalises_observations=True,
    learns_offline=True,
    fine_tuning=FINE_TUNING,
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
