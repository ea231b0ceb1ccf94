"""A NaN goes back to the last good checkpoint with a lower learning rate, twice, then stops."""

import json
import operator

import jax
import numpy as np
import pytest

from rlcar.agents import ALGORITHMS
from rlcar.config import load_config
from rlcar.errors import NonFiniteError
from rlcar.rollout.compiled import Rollout
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.training.loop import train
from rlcar.training.rollback import roll_back, with_lower_learning_rate
from tests.support.tiny_run import compiled_once, make_tiny_config


@pytest.fixture(autouse=True)
def _compiled_once():
    with compiled_once():
        yield


def plain_config(*overrides):
    """The plain agent, which compiles in seconds."""
    return make_tiny_config("algorithm=documented", *overrides)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_has_a_learning_rate_to_halve(name):
    before = make_tiny_config(f"algorithm={name}")
    after = with_lower_learning_rate(before)
    rates = [
        operator.attrgetter(ALGORITHMS[name].learning_rate)(config.algorithm_settings)
        for config in (before, after)
    ]
    assert rates[1] == rates[0] / 2
    assert after.training.rollbacks == before.training.rollbacks + 1


@pytest.mark.long
@pytest.mark.slow
def test_an_absurd_learning_rate_is_halved_twice_and_then_ends_the_training(tmp_path, caplog):
    config = plain_config("documented.learning_rate=1e38")
    with pytest.raises(
        NonFiniteError, match=r"after \d+ train steps.* stopped after 2 returns"
    ) as end:
        train(config, tmp_path / "run")
    assert "Resume with a lower documented.learning_rate" in str(end.value)
    said = [record.message for record in caplog.records if record.name == "rlcar.training.rollback"]
    assert [one.rpartition("(")[2] for one in said] == ["1 of 2)", "2 of 2)"]
    for save in checkpoint.saves(tmp_path / "run" / "checkpoints"):
        assert checkpoint.damage(save) == ""


@pytest.mark.slow
def test_a_block_that_poisons_the_losses_is_forgotten_and_training_ends_well(tmp_path, monkeypatch):
    collect, poisoned = Rollout.collect, []

    def poison_one(rollout, weights):
        trajectory, episodes = collect(rollout, weights)
        if checkpoint.saves(tmp_path / "run" / "checkpoints") and not poisoned:
            poisoned.append(weights.version)
            reward = np.where(trajectory.is_first, 0.0, np.float32(3e38)).astype(np.float32)
            trajectory = trajectory._replace(reward=reward)
        return trajectory, episodes

    monkeypatch.setattr(Rollout, "collect", poison_one)
    config = plain_config("training.checkpoint_every_s=0.3", "training.env_steps=1536")
    outcome = train(config, tmp_path / "run")
    assert poisoned
    assert outcome.summary["env_steps"] == 1536
    save = checkpoint.latest(tmp_path / "run" / "checkpoints")
    kept = load_config(save.path / "config.json")
    assert kept.training.rollbacks == 1
    assert kept.documented.learning_rate == config.documented.learning_rate / 2
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["env_steps"] for row in rows] == sorted(row["env_steps"] for row in rows)
    assert [row["learner/rollbacks"] for row in rows if "learner/rollbacks" in row][-1] == 1
    json.dumps(rows, allow_nan=False)


def test_who_looks_for_a_nan_is_told_at_once(tmp_path):
    with jax.debug_nans(True), pytest.raises(NonFiniteError, match="training stopped; no check"):
        roll_back(NonFiniteError("model/loss is nan"), plain_config(), tmp_path)


def test_a_deterministic_training_does_not_return_to_a_checkpoint_that_the_clock_chose(tmp_path):
    config = plain_config("training.deterministic=true")
    with pytest.raises(NonFiniteError, match=r"loss is nan: .*no automatic return to a checkpoint"):
        roll_back(NonFiniteError("model/loss is nan"), config, tmp_path)
