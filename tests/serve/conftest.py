"""A registry with one model, and a clock that tests set."""

import pytest

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
