"""Episodes and data sets for tests."""

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, Episode, World
from rlcar.datasets.description import describe
from rlcar.types import Spec

RACE = describe(World(race=RaceConfig()), Spec(6, 2))
PICTURES = describe(World(name="pictures"), Spec(0, 4, is_discrete=True, image_shape=(40, 36, 3)))


def make_episode(length, seed=0, **changes):
    """Returns a random episode of the race."""
    random = np.random.default_rng(seed)
    episode = Episode(
        random.random((length + 1, 6), np.float32),
        random.uniform(-1, 1, (length, 2)).astype(np.float32),
        random.normal(size=length).astype(np.float32),
        is_terminal=seed % 2 == 0,
        is_truncated=seed % 2 == 1,
        action_logp=random.normal(size=length).astype(np.float32),
        policy=f"driver {seed % 3}",
    )
    return episode._replace(**changes)


def make_pictures(length, seed=0):
    """Returns a random episode of images and discrete actions."""
    random = np.random.default_rng(seed)
    return Episode(
        random.integers(0, 256, (length + 1, 40, 36, 3), np.uint8),
        random.integers(0, 4, length).astype(np.int32),
        random.normal(size=length).astype(np.float32),
        True,
        False,
    )


def write(folder, episodes, description=RACE, **options):
    """Writes the episodes and opens the data set."""
    with DatasetWriter(folder, description, **options) as writer:
        for episode in episodes:
            writer.append(episode)
    return Dataset.open(folder)


def assert_same(first, second):
    """Fails unless two episodes are equal in every number and type."""
    arrays = ("observation", "action", "reward", "action_logp")
    without = dict.fromkeys(arrays)
    assert first._replace(**without) == second._replace(**without)
    for name in arrays:
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours is None or theirs is None:
            assert ours is theirs, name
        else:
            np.testing.assert_array_equal(ours, theirs, strict=True)
