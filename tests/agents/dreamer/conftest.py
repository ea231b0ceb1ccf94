"""A world model of the `config` that a file of tests defines for itself."""

import jax
import pytest

from rlcar.agents.dreamer.world_model import make_world_model
from tests.agents.dreamer.tiny import SPEC, quick_jit


@pytest.fixture(scope="module")
def model(config):
    return make_world_model(config, SPEC)


@pytest.fixture(scope="module")
def params(model):
    return quick_jit(model.init)(jax.random.PRNGKey(0))
