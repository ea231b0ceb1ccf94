"""Policies with random parameters that are as large as those of trained ones."""

from typing import Any

import jax
import numpy as np

from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.envs.schema import schema_of
from rlcar.registry import Model, Version
from rlcar.sim import SPEC
from rlcar.storage.arrays import flatten, leaf_name
from rlcar.types import Spec


def trained_like(config: Config, seed: int = 0, spec: Spec = SPEC) -> Any:
    """Parameters as large as trained ones: no layer is near zero, no normaliser the identity."""
    agent = make_agent(config, spec)
    like = jax.eval_shape(lambda: agent.learner.policy_params(agent.learner.init(0)))
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if leaf_name(path).endswith(".b"):
            return (0.3 * rng.normal(size=leaf.shape)).astype(np.float32)
        if len(leaf.shape) < 2:
            return (0.5 + rng.random(leaf.shape)).astype(np.float32)
        return (rng.normal(size=leaf.shape) * 1.5 / leaf.shape[-2] ** 0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, like)


def model_of(config: Config, params: Any, spec: Spec = SPEC) -> Model:
    """Returns version 1 of a registry, whose metadata are only what acting needs."""
    observation, action = schema_of(config, spec)
    metadata = {"config": config.model_dump(), "observation": observation, "action": action}
    return Model(Version(1, "", metadata, {}), flatten(params))
