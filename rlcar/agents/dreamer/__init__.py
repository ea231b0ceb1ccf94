"""The world-model agent of Hafner et al. 2025, DreamerV3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlcar.agents.algorithm import AgentParts, Algorithm
from rlcar.agents.dreamer.presets import FINE_TUNING, OFFLINE, PRESETS, TEST_MODE
from rlcar.agents.dreamer.settings import DreamerConfig

if TYPE_CHECKING:
    from rlcar.agents.dreams import DreamSupport
    from rlcar.agents.numpy_network import NumpyPolicyParts


def _load_agent() -> AgentParts[DreamerConfig]:
    from rlcar.agents.dreamer.learner import make_learner
    from rlcar.agents.dreamer.policy import make_policy

    return AgentParts(make_policy, make_learner)


def _load_numpy_policy() -> NumpyPolicyParts[DreamerConfig]:
    from rlcar.agents.dreamer.numpy_policy import array_shapes, make_numpy_network
    from rlcar.agents.numpy_network import NumpyPolicyParts

    return NumpyPolicyParts(make_numpy_network, array_shapes)


def _load_dream_support() -> DreamSupport[DreamerConfig]:
    from rlcar.agents.dreamer.dream import DREAM_SUPPORT

    return DREAM_SUPPORT


ALGORITHM = Algorithm(
    name="dreamer",
    settings=DreamerConfig,
    presets=PRESETS,
    default_preset="nano",
    grand_prix_preset="nano-grand-prix",
    gymnasium_preset="gymnasium",
    test_mode=TEST_MODE,
    learning_rate="optimizer.learning_rate",
    learns_offline=True,
    offline=OFFLINE,
    fine_tuning=FINE_TUNING,
    supports_discrete_actions=True,
    supports_images=True,
    image_sizes_px=(16, 32, 64),
    has_memory=lambda settings: True,
    load_agent=_load_agent,
    load_numpy_policy=_load_numpy_policy,
    load_dream_support=_load_dream_support,
)
