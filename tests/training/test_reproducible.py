"""One process: the same seed gives the same run, whatever generators its environment uses."""

import random

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.envs.generators import GlobalGenerators
from rlcar.training.loop import train
from tests.support.equal_runs import assert_equal_runs, learned
from tests.support.odd_environments import id_of

SETTINGS = (
    "training.cars=2",
    "training.block_length=16",
    "training.env_steps=128",
    "training.evaluate_every_env_steps=64",
    "training.deterministic=true",
)


def run(folder, seed):
    # What others draw, and how they seed, is no matter; nor does a training disturb them.
    random.seed(str(folder))
    np.random.seed(len(str(folder)))  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    config = make_config(
        mode="test", algorithm="ppo", environment=id_of("global"), overrides=SETTINGS, seed=seed
    )
    train(config, folder)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_an_environment_that_draws_from_the_global_generators_repeats(tmp_path):
    run(tmp_path / "a", seed=3)
    run(tmp_path / "and-b", seed=3)
    assert_equal_runs(tmp_path / "a", tmp_path / "and-b")
    run(tmp_path / "c", seed=4)
    assert str(learned(tmp_path / "a")) != str(learned(tmp_path / "c"))


@pytest.mark.parametrize("seeds", [[0], [1, 2], [2, 1], [2**31 - 1]])
def test_each_group_has_a_stream_of_its_own_that_goes_on(seeds):
    def draw(generators, number):
        with generators.installed():
            return [(random.random(), np.random.random()) for _ in range(number)]  # noqa: NPY002

    one, other = GlobalGenerators(seeds), GlobalGenerators(seeds)
    together = draw(one, 4)
    assert draw(other, 2) + draw(other, 2) == together
    assert len(set(together)) == 4
    assert draw(GlobalGenerators([7]), 4) != together
