"""Conservative Q-learning (Kumar et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm, Tree
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.offline_learning.presets import FAR_SIGHTED, FINE_TUNING, RECORDED

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[CqlConfig]:
    from rlcar.agents.cql.learner import make_learner
    from rlcar.agents.cql.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[CqlConfig]:
    from rlcar.agents.cql.numpy_policy import array_shapes, make_numpy_network
    from rlcar.agents.numpy_network import NumpyPolicyParts

    return NumpyPolicyParts(make_numpy_network, array_shapes)


# By driving, the policy itself finds out what its actions are worth. The conservative loss at its
# full weight would push the critics' values of driving on below that of a crash, sooner or later.
_FINE_TUNING: Tree = {**FINE_TUNING, "cql": {"conservative_scale": 0.5}}

ALGORITHM = Algorithm(
    name="cql",
    settings=CqlConfig,
    presets={
        "cql": {"algorithm": "cql", **RECORDED},
        "cql-grand-prix": {"algorithm": "cql", "cql": FAR_SIGHTED, **RECORDED},
    },
    default_preset="cql",
    grand_prix_preset="cql-grand-prix",
    test_mode={"hidden_units": 32, "action_samples": 2},
    supports_discrete_actions=True,
    normalises_observations=True,
    learns_offline=True,
    fine_tuning=_FINE_TUNING,
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
