"""JAX on the CPU, strict about ranks; and the smallest configuration in which everything runs."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before anything imports JAX

import jax
import pytest

from rlcar.config import Config, make_config

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return make_config(mode="test")
