"""The profile: stages and operations of a real run, and a trace that opens."""

import gzip
import json

import pytest

from rlcar.cli import profile
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.training.profiler import profile_sim, profile_train
from tests.support.tiny_run import make_tiny_config


@pytest.mark.long
def test_a_training_is_profiled_by_stage_and_by_operation(tmp_path):
    # A trace holds every operation of the evaluation: a short one is enough.
    config = make_tiny_config("race.time_limit_steps=50")
    profile = profile_train(config, tmp_path / "out", blocks=2)
    assert set(profile.stages_s) == {
        "drive", "insert", "train", "weights to the host", "evaluate (once)",
    }  # fmt: skip
    assert 0 < sum(profile.stages_s.values()) <= profile.wall_s
    assert (profile.env_steps, profile.train_steps > 0) == (256, True)
    assert {"jit_collect", "jit_update"} <= set(profile.kernels)
    seconds = [one[2] for one in profile.operations]
    assert seconds == sorted(seconds, reverse=True)
    assert {"drive", "train"} <= names_in(profile)


def names_in(profile):
    """What the trace names; Perfetto does not like metadata in it."""
    with gzip.open(profile.trace) as file:
        trace = json.load(file)
    assert "metadata" not in trace
    return {event["name"] for event in trace["traceEvents"] if "name" in event}


@pytest.mark.long
def test_driving_alone_trains_nothing(tmp_path):
    profile = profile_sim(make_tiny_config("algorithm=ppo"), tmp_path, blocks=3)
    assert (profile.env_steps, profile.train_steps) == (384, 0)
    assert set(profile.stages_s) == {"drive"}
    assert "drive" in names_in(profile)


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="there are train and sim"):
        profile.profile("everything")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        profile_sim(make_tiny_config(), blocked, blocks=1)
    with pytest.raises(UserError, match="blocks_per_call = 4 compiles all stages"):
        profile_train(make_config("fused-ppo"), tmp_path / "fused", blocks=1)


def test_another_environment_is_what_is_profiled(tmp_path):
    config = make_config(mode="test", environment="CartPole-v1", overrides=["training.cars=2"])
    assert profile_sim(config, tmp_path, blocks=1).env_steps == 2 * config.training.block_length
