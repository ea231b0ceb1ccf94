"""The policy that LitServe and BentoML serve; benchmarks/serving.py says where it lies.

Their own environment lacks what the policy needs; it comes from the project's, after theirs.
"""

import os
import sys

sys.path += os.environ["RLCAR_PEER_PATH"].split(os.pathsep)

import numpy as np  # noqa: E402

from rlcar.registry import Registry  # noqa: E402
from serve.policy.policy import load_policy  # noqa: E402

FIRST = np.ones(1, bool)


class Act:
    """Acts as at the first step of an episode."""

    def __init__(self) -> None:
        self._policy = load_policy(Registry(os.environ["RLCAR_PEER_MODELS"]))

    def __call__(self, observation: list[float]) -> list[float]:
        seen = np.array([observation], np.float32)
        action, _ = self._policy.act(self._policy.initial_state(1), seen, FIRST)
        return [float(pedal) for pedal in action[0]]
