"""Versions that older code has published load, and act as they did.

`tests/golden/formats/models` holds the runs of `tests/golden/formats/runs`, published by commit
e9f1239; `actions.json` holds what each policy did for three observations of four cars then.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from rlcar.registry import Registry
from serve.policy import load_policy

FORMATS = Path(__file__).parents[1] / "golden" / "formats"
ACTIONS = json.loads((FORMATS / "actions.json").read_text())
VERSIONS = {"dreamer": 1, "documented": 2, "ppo": 3, "sac": 4, "td3": 5}


@pytest.mark.parametrize("algorithm", VERSIONS)
def test_a_version_of_older_code_acts_as_it_did(algorithm):
    policy = load_policy(Registry(FORMATS / "models"), VERSIONS[algorithm])
    observations = np.linspace(0.05, 0.95, 3 * 4 * 6, dtype=np.float32).reshape(3, 4, 6)
    state = policy.initial_state(4)
    for step, observation in enumerate(observations):
        action, state = policy.act(state, observation, np.full(4, step == 0))
        np.testing.assert_allclose(action, ACTIONS[algorithm][step], atol=1e-5)
