"""A model that an earlier rlcar exported is still read, and still acts as it did.

`make golden` writes it anew: only for another format, whose number then goes up.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.registry import Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC
from serve.policy.policy import NumpyPolicy, load_policy
from tests.support.untrained_run import write_run

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL, ACTIONS = GOLDEN / "model.safetensors", GOLDEN / "model_actions.json"


def _drive(policy: NumpyPolicy) -> list[list[float]]:
    """Two cars over 30 steps of noise; one of them begins a new episode on the way."""
    rng, state, actions = np.random.default_rng(5), policy.initial_state(2), []
    for step in range(30):
        is_first = np.array([step == 0, step in (0, 11)])
        action, state = policy.act(state, rng.random((2, 6), np.float32), is_first)
        actions.append(action.ravel().tolist())
    return actions


def _write(folder: Path) -> None:
    """A world model as large as it needs to be, with weights that do something."""
    config, rng = make_config(mode="test"), np.random.default_rng(3)
    registry = Registry(folder / "models")
    metadata = registry.publish(write_run(folder / "golden", config), "a golden one").metadata
    arrays = {
        name: (rng.normal(size=shape) * 1.5 / max(shape[-2:-1], default=1) ** 0.5).astype("f4")
        for name, shape in policy_shapes(config, SPEC).items()
    }
    registry.add(arrays, metadata)
    MODEL.unlink(missing_ok=True)
    registry.export(2, MODEL)
    MODEL.chmod(0o644)
    ACTIONS.write_text(json.dumps(_drive(load_policy(registry, 2)), indent=0) + "\n")


def test_a_golden_model_is_read_and_acts_as_it_did(registry, tmp_path):
    if os.environ.get("RLCAR_UPDATE_GOLDEN") == "1":
        _write(tmp_path)
        pytest.skip("golden model rewritten")
    version = registry.import_(MODEL)
    assert version.metadata["description"] == "a golden one"
    actions = _drive(load_policy(registry, version.number))
    np.testing.assert_allclose(actions, json.loads(ACTIONS.read_text()), rtol=0, atol=1e-5)
    assert np.ptp(actions) > 0.5
