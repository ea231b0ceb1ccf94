"""Training from recorded data in one process: exact resumption, moments, refusals."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rlcar.agents import ALGORITHMS, DEFAULT_ALGORITHM, make_agent
from rlcar.cli.behaviours import load_learned
from rlcar.config import dump_config, make_config, parse_config
from rlcar.datasets import World
from rlcar.errors import ConfigError, DatasetError, RegistryError, UserError
from rlcar.evaluation.environment import make_rollout, spec_of
from rlcar.offline.data_settings import settings_of_data
from rlcar.offline.fine_tuning import continued_config
from rlcar.registry import Registry
from rlcar.runs.metrics_file import read_metrics
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.storage.arrays import flatten, read_arrays
from rlcar.training.loop import train
from rlcar.training.trainer import Trainer
from rlcar.types import Spec
from serve.policy.policy import load_policy
from tests.support.recordings import record
from tests.support.tiny_run import SETTINGS, compiled_once

OFFLINE = [name for name, algorithm in ALGORITHMS.items() if algorithm.learns_offline]


def _config(algorithm, folder, *overrides):
    _, of_data = settings_of_data(folder, None, None)
    return make_config(
        mode="test", algorithm=algorithm, overrides=[*of_data, *SETTINGS, *overrides]
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "data"
    record(folder)
    return folder


# `tests/training/test_loop.py` does it with the world model, which takes longest.
@pytest.mark.parametrize("algorithm", [name for name in OFFLINE if name != DEFAULT_ALGORITHM])
def test_a_stopped_and_resumed_training_equals_the_uninterrupted_one_bit_for_bit(
    algorithm, data, tmp_path
):
    config = _config(algorithm, data, "training.evaluate_every_env_steps=1024")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    with compiled_once():
        train(config, whole)
        shutil.copytree(whole, parted)
        for save in checkpoint.saves(parted / "checkpoints"):
            if save.env_steps > 512:
                shutil.rmtree(save.path)
        train(config, parted, checkpoint.latest(parted / "checkpoints"))
    saves = [checkpoint.latest(folder / "checkpoints") for folder in (whole, parted)]
    assert [save.env_steps for save in saves] == [768, 768]
    for file in ("state", "rollout"):
        one, other = (read_arrays(save.path / f"{file}.safetensors") for save in saves)
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_the_policy_is_stored_with_the_moments_of_the_data(data, tmp_path):
    with compiled_once():
        train(_config("bc", data), tmp_path / "run")
    save = checkpoint.latest(tmp_path / "run" / "best")
    arrays = read_arrays(save.path / "state.safetensors")
    moments = record(tmp_path / "again").moments
    np.testing.assert_allclose(arrays["policy.moments.mean"], moments.mean, rtol=1e-5)
    variance = np.square(moments.standard_deviation)
    np.testing.assert_allclose(arrays["policy.moments.variance"], variance, rtol=1e-5)


def test_data_of_an_unknown_environment_is_learned_without_evaluation(tmp_path):
    spec = Spec(4, 3, is_discrete=True)
    record(tmp_path / "data", world=World(name="elsewhere"), spec=spec)
    config = _config("cql", tmp_path / "data")
    assert not config.is_race
    assert spec_of(config) == spec
    outcome = train(config, tmp_path / "run")
    assert outcome.summary["env_steps"] == 768
    best = checkpoint.latest(tmp_path / "run" / "best")
    assert best.env_steps == 512
    assert best.meta["metric"] is None
    # The newest policy stays the best after a resumption.
    longer = config.model_copy(
        update={"training": config.training.model_copy(update={"env_steps": 1536})}
    )
    train(longer, tmp_path / "run", checkpoint.latest(tmp_path / "run" / "checkpoints"))
    assert checkpoint.latest(tmp_path / "run" / "best").env_steps > 768

    # Where the data is not, a published version acts nevertheless.
    Registry(tmp_path / "models").publish(tmp_path / "run")
    shutil.rmtree(tmp_path / "data")
    learned = load_learned("1", str(tmp_path / "models"))
    assert spec_of(learned.config) == spec
    lineage = Registry(tmp_path / "models").version(1).metadata["lineage"]
    assert (lineage["cost"], lineage["data"]) == (None, config.data.fingerprint)
    with pytest.raises(RegistryError, match="acts in an unknown environment with 3 discrete"):
        load_policy(Registry(tmp_path / "models"), 1)

    with pytest.raises(UserError, match="learned from data whose environment cannot be made here"):
        continued_config(tmp_path / "run", [], None)


def test_a_simulator_process_does_not_load_the_reader_of_parquet():
    program = (
        "import sys, cluster.training.simulator, rlcar.evaluation.environment\n"
        "assert 'rlcar.datasets.dataset' in sys.modules\n"
        "assert 'pyarrow.parquet' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize("spec", [Spec(4, 3), Spec(0, 2, image_shape=(16, 16, 3))])
def test_the_sizes_of_unknown_data_are_part_of_the_settings(tmp_path, spec):
    record(tmp_path / "data", world=World(name="elsewhere"), spec=spec, episodes=3)
    _, of_data = settings_of_data(tmp_path / "data", None, None)
    config = make_config(mode="test", algorithm="dreamer", overrides=of_data)
    shutil.rmtree(tmp_path / "data")
    assert spec_of(parse_config(json.loads(dump_config(config)))) == spec


def test_the_command_takes_world_and_environment_from_the_data(data, tmp_path):
    config = _config("iql", data)
    assert config.data.folder == str(data.resolve())
    with pytest.raises(DatasetError, match="--env rlcar/Catch-v0 contradicts .* leave --env out"):
        settings_of_data(data, None, "rlcar/Catch-v0")
    with pytest.raises(DatasetError, match="--world grand-prix contradicts"):
        settings_of_data(data, "grand-prix", None)
    assert settings_of_data(data, "classic", None)[0] == "classic"


def _refusal(config):
    with pytest.raises((ConfigError, DatasetError)) as refusal:
        make_rollout(config, make_agent(config, SPEC).policy)
    return str(refusal.value)


def test_settings_of_another_world_are_refused_by_name(data):
    message = _refusal(_config("bc", data, "race.track.half_width_px=20.0"))
    assert "race.track.half_width_px is 40.0 in the data and 20.0 in the settings" in message
    message = _refusal(_config("bc", data, "environment.id=rlcar/Catch-v0"))
    assert "settings: it is race in the data and rlcar/Catch-v0 in the settings" in message


def test_an_algorithm_without_the_right_source_is_refused(data):
    assert _refusal(_config("ppo", data)).endswith(f"--algorithm {' or '.join(OFFLINE)}")
    without = make_config(mode="test", algorithm="bc")
    assert "bc learns from recorded data alone" in _refusal(without)


def test_data_that_has_changed_is_refused(data, tmp_path):
    config = _config("bc", data)
    record(tmp_path / "other", episodes=31)
    moved = config.data.model_copy(update={"folder": str(tmp_path / "other")})
    assert "has changed since this run began" in _refusal(config.model_copy(update={"data": moved}))


def test_a_continued_training_begins_with_the_learner_and_the_newest_recorded_steps(data, tmp_path):
    with compiled_once():
        train(_config("iql", data, "training.replay_every_s=1e-9"), tmp_path / "offline")
    config = continued_config(
        tmp_path / "offline", [*SETTINGS, "training.start_env_steps=256"], seed=5
    )
    assert config.data.folder == ""
    offline = _config("iql", data)
    assert config.data.fingerprint == offline.data.fingerprint
    assert config.replay.samples_per_insert != offline.replay.samples_per_insert
    assert config.seed == 5
    before = checkpoint.latest(tmp_path / "offline" / "checkpoints")
    agent = make_agent(config, SPEC)
    trainer = Trainer(config, SPEC, agent)
    trainer.begin(None)
    assert (trainer.env_steps, trainer.train_steps) == (0, 0)
    known = checkpoint.load_arrays(before, "policy")
    for name, array in flatten(trainer.weights().params).items():
        np.testing.assert_array_equal(array, known[name])
    whole = read_arrays(before.path / "replay.safetensors")
    kept = trainer._replay.state()
    assert trainer._replay.env_steps_stored == 256
    assert (kept["weights_version"] == 0).all()
    np.testing.assert_array_equal(kept["reward"], whole["reward"][-8:])
    with compiled_once():
        train(config, tmp_path / "online")
    # Recorded blocks are not driven: there are neither laps nor old weights to report.
    driving = {"episode/lap_rate", "rollout/weights_lag_updates"}
    recorded = read_metrics(tmp_path / "offline" / "metrics.jsonl")
    assert not any(driving & row.keys() for row in recorded)
    assert any(row.get("episode/reward") is not None for row in recorded)
    rows = read_metrics(tmp_path / "online" / "metrics.jsonl")
    assert driving <= set().union(*rows)
    evaluated = [row["env_steps"] for row in rows if "evaluation/lap_rate" in row]
    assert evaluated == [0, 512]
    # A run that drove already keeps its own settings.
    again = continued_config(tmp_path / "online", ["replay.samples_per_insert=3.0"], None)
    assert again.training.env_steps == config.training.env_steps


def test_a_training_of_recorded_data_alone_cannot_go_on_by_driving(data, tmp_path):
    with compiled_once():
        train(_config("bc", data), tmp_path / "offline")
    with pytest.raises(UserError, match="bc, which learns from recorded data alone: .*cql"):
        continued_config(tmp_path / "offline", [], None)
