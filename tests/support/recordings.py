"""Small data sets with pseudo-random episodes."""

from pathlib import Path

import numpy as np

from rlcar.config import make_race_config
from rlcar.datasets import Dataset, DatasetWriter, Episode, World
from rlcar.datasets.description import describe
from rlcar.sim import SPEC
from rlcar.types import Spec

RACE = World(race=make_race_config())


def random_episode(rng: np.random.Generator, spec: Spec = SPEC, length: int = 20) -> Episode:
    """Returns an episode of noise; half of them end with a crash, the others with a time limit."""
    shape = spec.image_shape or (spec.observation_size,)
    observation = rng.random((length + 1, *shape), np.float32)
    if spec.image_shape is not None:
        observation = (255 * observation).astype(np.uint8)
    action = rng.uniform(-1.0, 1.0, (length, spec.action_size)).astype(np.float32)
    if spec.is_discrete:
        action = rng.integers(spec.action_size, size=length).astype(np.int32)
    reward = rng.normal(size=length).astype(np.float32)
    is_terminal = bool(rng.random() < 0.5)
    return Episode(observation, action, reward, is_terminal, not is_terminal)


def record(
    folder: Path,
    *,
    world: World = RACE,
    spec: Spec = SPEC,
    episodes: int = 30,
    part_transitions: int = 200,
) -> Dataset:
    """Writes episodes of 10 to 30 transitions into several parts, and opens them."""
    rng = np.random.default_rng(0)
    description = describe(world, spec)
    with DatasetWriter(folder, description, part_transitions=part_transitions) as writer:
        for _ in range(episodes):
            writer.append(random_episode(rng, spec, int(rng.integers(10, 31))))
    return Dataset.open(folder)
