"""JAX on the CPU, strict about ranks; and the smallest configuration in which everything runs."""

import os

# Before anything imports JAX. Most of the tests' time is compiling: code that runs for a second
# need not be optimised.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

from rlcar.config import Config, make_config

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return make_config(mode="test")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Deals whole files out to the processes, for what their tests share, and all of Ray to one.

    Two Ray clusters at once are more than two cores can start in time.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
