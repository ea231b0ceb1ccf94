"""What a server would refuse is not promoted, and not rolled back to."""

import sys

import numpy as np
import pytest

from rlcar import cli
from rlcar.errors import RegistryError
from rlcar.registry import Registry
from serve.policy.policy import try_model
from tests.serve.served import damage, publish


def _overflowing(folder) -> int:
    """Adds a version of which every number is finite, and which acts with infinite ones."""
    registry = Registry(folder)
    model = registry.open(1)
    arrays = {
        name: np.full_like(array, 3e38) if name.startswith("actor.") else array
        for name, array in model.arrays.items()
    }
    return registry.add(arrays, model.version.metadata).number


def _with_discrete_actions(folder) -> int:
    registry = Registry(folder)
    model = registry.open(1)
    metadata = model.version.metadata
    config = metadata["config"]
    changed = {**config, "environment": {**config["environment"], "id": "rlcar/Catch-v0"}}
    action = [{**entry, "low": 0.0} for entry in metadata["action"]]
    return registry.add(model.arrays, {**metadata, "config": changed, "action": action}).number


def _damaged(folder) -> int:
    number = publish(folder, seed=1, alias=None)
    damage(folder, number)
    return number


@pytest.fixture
def models(monkeypatch, capsys, tmp_path):
    """Runs `rlcar models ...`; returns the exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlcar", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize("make", [_overflowing, _with_discrete_actions, _damaged])
def test_what_a_server_refuses_is_not_promoted(models, tmp_path, make):
    folder = tmp_path / "models"
    publish(folder)
    number = make(folder)
    registry = Registry(folder)
    with pytest.raises(RegistryError):
        try_model(registry.open(number))
    code, error = models("promote", number)
    assert code == 2
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert registry.resolve("champion") == 1


def test_what_a_server_refuses_is_passed_over_by_a_rollback(models, tmp_path):
    folder = tmp_path / "models"
    publish(folder)
    registry = Registry(folder)
    registry.promote(_overflowing(folder))  # as an older rlcar did, without a trial
    publish(folder, seed=1)
    assert models("rollback")[0] == 0
    assert registry.resolve("champion") == 1


def test_what_acts_is_promoted(models, tmp_path):
    folder = tmp_path / "models"
    publish(folder)
    number = publish(folder, seed=1, alias=None)
    assert models("promote", number)[0] == 0
    assert Registry(folder).resolve("champion") == number
