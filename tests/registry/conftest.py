"""A run to publish, and an empty registry."""

from pathlib import Path

import pytest

from rlcar.registry import Registry
from tests.support.untrained_run import untrained


@pytest.fixture
def run() -> Path:
    return untrained()


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "models")
