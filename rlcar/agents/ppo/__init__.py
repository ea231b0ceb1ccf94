"""Proximal policy optimisation (Schulman et al. 2017), with an optional GRU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.ppo.presets import PRESETS
from rlcar.agents.ppo.settings import PpoConfig

if TYPE_CHECKING:
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[PpoConfig]:
    from rlcar.agents.ppo.learner import make_learner
    from rlcar.agents.ppo.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[PpoConfig]:
    from rlcar.agents.numpy_network import NumpyPolicyParts
    from rlcar.agents.ppo.numpy_policy import array_shapes, make_numpy_network

    return NumpyPolicyParts(make_numpy_network, array_shapes)


ALGORITHM = Algorithm(
    name="ppo",
    settings=PpoConfig,
    presets=PRESETS,
    default_preset="ppo",
    environment_presets={"rlcar/Lander-v0": "lander-ppo"},
    test_mode={"hidden_units": 32},
    is_on_policy=True,
    supports_discrete_actions=True,
    supports_images=True,
    has_memory=lambda settings: settings.recurrent_units > 0,
    normalises_observations=True,
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
)
