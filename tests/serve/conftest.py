"""Registries with one model and with two, and a clock that tests set."""

import pytest

from rlcar.registry import Registry
from serve.policy.alias_follower import warm_up
from serve.policy.policy import load_policy
from tests.serve.served import publish


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry with two versions; the first one is champion."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    return folder


@pytest.fixture(scope="module")
def versions(folder):
    """The two versions, ready to act."""
    return [warm_up(load_policy(Registry(folder), number)) for number in (1, 2)]
