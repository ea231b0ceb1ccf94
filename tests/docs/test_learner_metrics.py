"""The table of metrics holds what each algorithm's learner returns, and nothing that none does."""

import functools

import jax
import numpy as np
import pytest

from rlcar.agents import ALGORITHMS, make_agent
from rlcar.config import make_config
from rlcar.replay.rings import fields_of
from rlcar.runs.metric_table import METRICS
from rlcar.sim import SPEC
from rlcar.types import Batch

IMAGES = SPEC._replace(image_shape=(16, 16, 3))


@functools.cache
def metrics_of(algorithm, spec):
    """Traces one update, which compiles nothing, for the names of its metrics.

    The settings are those for recorded data, with which a learner has all its losses.
    """
    config = make_config(algorithm=algorithm, mode="test", overrides=["data={}"])
    agent = make_agent(config, spec)
    shape = (1, config.replay.batch_size, config.replay.batch_length)
    fields = fields_of(spec, agent.policy.carry_size).items()
    batches = Batch(
        **{
            name: jax.ShapeDtypeStruct((*shape, *inner), dtype)
            for name, (inner, dtype) in fields
            if name in Batch._fields
        }
    )
    state = jax.eval_shape(lambda: agent.learner.init(0))
    _, metrics = jax.eval_shape(agent.learner.update, state, batches)
    assert all(leaf.dtype == np.float32 for leaf in metrics.values())
    return metrics.keys()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_metrics_of_a_learner_are_in_the_table(algorithm):
    assert sorted(metrics_of(algorithm, SPEC) - METRICS.keys()) == []


def test_the_metrics_of_images_are_in_the_table():
    able = [name for name, algorithm in ALGORITHMS.items() if algorithm.supports_images]
    assert able
    for name in able:
        assert sorted(metrics_of(name, IMAGES) - METRICS.keys()) == []


def test_the_table_names_no_metric_of_a_learner_that_none_returns():
    returned = set().union(*(metrics_of(name, SPEC) for name in ALGORITHMS))
    returned |= metrics_of(
        next(name for name in ALGORITHMS if ALGORITHMS[name].supports_images), IMAGES
    )
    kinds = ("model/", "actor/", "critic/", "optimizer/")
    assert {name for name in METRICS if name.startswith(kinds)} == returned
