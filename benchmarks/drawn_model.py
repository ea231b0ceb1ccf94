"""A registry with a policy whose weights are drawn: what acting costs does not depend on them."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.config import Config, make_config
from rlcar.envs.schema import schema_of
from rlcar.registry import NORMALISER, Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC
from serve.policy.policy import load_policy

_LINEAGE = (
    *("run", "checkpoint", "env_steps", "train_steps", "seed", "commit", "trained", "versions"),
    "cost",
)


def untrained_metadata(config: Config, description: str) -> dict[str, Any]:
    """Returns the metadata of a version that no training has made."""
    observation, action = schema_of(config, SPEC)
    return {
        "description": description,
        "algorithm": config.algorithm,
        "config": json.loads(config.model_dump_json()),
        "observation": observation,
        "action": action,
        "normaliser": NORMALISER if config.algorithm == "ppo" else None,
        "laps": None,
        "lineage": dict.fromkeys(_LINEAGE),
    }


def publish_drawn(folder: Path, preset: str) -> float:
    """Publishes a policy of the preset as champion; returns the CPU time of an action in us."""
    config = make_config(preset)
    rng = np.random.default_rng(0)
    arrays = {
        name: (0.1 + 0.1 * rng.random(shape)).astype(np.float32)
        for name, shape in policy_shapes(config, SPEC).items()
    }
    metadata = untrained_metadata(config, f"{preset} with drawn weights")
    registry = Registry(folder)
    registry.promote(registry.add(arrays, metadata).number)
    policy = load_policy(registry)
    state, first = policy.initial_state(1), np.zeros(1, bool)
    seen = rng.random((1, SPEC.observation_size), np.float32)
    began_s = time.process_time()
    for _ in range(1000):
        _, state = policy.act(state, seen, first)
    return (time.process_time() - began_s) * 1e3
