"""Versions with a reference, and laps that a car observes: smooth random curves."""

from pathlib import Path
from typing import Any

import numpy as np

from rlcar.evaluation.lap_reference import make_lap_reference, reference_tree
from rlcar.registry import Registry
from serve.policy.policy import load_policy
from tests.serve.served import publish

STEPS, SIZE = 60, 6  # of a lap, and of an observation


def observed(laps: int, seed: int) -> np.ndarray:
    """Returns what cars observe `[STEPS, laps, SIZE]`, from 0 to 1; laps of all seeds are alike."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0.0, 2 * np.pi, STEPS)[:, None, None]
    level, phase = 0.5 + 0.01 * rng.normal(size=(laps, SIZE)), rng.uniform(0, 6, (laps, SIZE))
    return np.clip(level + 0.2 * np.sin(9 * at + phase), 0.0, 1.0).astype(np.float32)


def acted(policy: Any, observation: np.ndarray) -> np.ndarray:
    """Returns the actions of a policy `[STEPS, laps, A]` for what cars observe."""
    state, actions = policy.initial_state(observation.shape[1]), []
    for step, seen in enumerate(observation):
        action, state = policy.act(state, seen, np.full(len(seen), step == 0))
        actions.append(action)
    return np.array(actions)


def reference_of(policy: Any, laps: int = 48) -> dict[str, Any]:
    """Returns the reference of a policy, as JSON; each lap earns 60, and nearly all succeed."""
    seen = observed(laps, seed=0)
    return reference_tree(
        make_lap_reference(
            seen,
            acted(policy, seen),
            np.ones(seen.shape[:2]),
            np.full(laps, STEPS),
            np.arange(laps) > 0,
        )
    )


def publish_watched(folder: Path, seed: int = 1, **changes: Any) -> int:
    """Publishes a version like `publish` does, with a reference in its report."""
    registry = Registry(folder)
    model = registry.open(publish(folder, seed, alias=None))
    reference = reference_of(load_policy(registry, model.version.number)) | changes
    metadata = model.version.metadata
    number = registry.add(model.arrays, metadata, {"reference": reference}).number
    registry.promote(number)
    return number
