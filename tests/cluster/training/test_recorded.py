"""Training from recorded data on Ray: the learner actor reads the data, and nothing drives."""

import numpy as np
import pytest

from cluster.config import ClusterConfig
from cluster.training.learner_actor import LearnerProcess
from cluster.training.loop import train
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.offline.data_settings import settings_of_data
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.storage.arrays import flatten
from rlcar.training.loop import train as train_locally
from rlcar.training.recorded import open_recorded
from rlcar.training.trainer import Trainer
from tests.support.equal_runs import learned
from tests.support.recordings import record
from tests.support.tiny_run import SETTINGS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def _config(folder, *overrides, algorithm="iql"):
    _, of_data = settings_of_data(folder, None, None)
    return make_config(
        mode="test", algorithm=algorithm, overrides=[*of_data, *SETTINGS, *overrides]
    )


@pytest.mark.slow
def test_a_training_on_ray_equals_one_in_one_process_and_continues_exactly(tmp_path):
    record(tmp_path / "data")
    config = _config(tmp_path / "data")
    train_locally(config, tmp_path / "local")
    shorter = _config(tmp_path / "data", "training.env_steps=512")
    train(shorter, ClusterConfig(), tmp_path / "ray")
    newest = checkpoint.latest(tmp_path / "ray" / "checkpoints")
    assert newest.env_steps == 512
    assert train(config, ClusterConfig(), tmp_path / "ray", newest).summary["env_steps"] == 768
    expected, found = learned(tmp_path / "local"), learned(tmp_path / "ray")
    assert found.keys() == expected.keys()
    for array, values in expected.items():
        np.testing.assert_array_equal(found[array], values, err_msg=array)


def test_train_steps_that_were_due_come_before_the_next_block(tmp_path):
    """A training that is stopped between a block and its train steps continues exactly."""
    record(tmp_path / "data")
    config = _config(tmp_path / "data", algorithm="bc")
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))
    blocks = open_recorded(config, trainer, None)

    def read() -> None:
        trainer.insert(blocks.collect(trainer.weights())[0])

    def learn() -> None:
        for _ in range(trainer.calls_due()):
            trainer.train()

    for _ in range(4):
        read()
    assert trainer.calls_due()
    stopped = trainer.save(tmp_path / "checkpoints", {"train_seconds": 0.0}, blocks.saved())
    learn()
    read()
    learn()

    process = LearnerProcess(config)
    process.start(stopped)
    report, weights = process.learn_recorded()
    assert report.train_steps == trainer.train_steps
    expected = flatten(trainer.weights().params)
    for name, array in flatten(weights.params).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
