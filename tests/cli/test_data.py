"""`rlcar data`: each command once, and one sentence for each mistake."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.datasets import Dataset
from rlcar.evaluation.environment import open_data
from rlcar.offline.data_settings import settings_of_data
from rlcar.registry import Registry
from rlcar.types import Spec
from tests.datasets.recorded import make_episode, write
from tests.support.untrained_run import write_run

TRACKS = ("--track-count", 16)


def test_recording_looking_checking_and_dealing_out(rlcar, tmp_path):
    code, _, said = rlcar(
        *("data", "record", "all", "careful@0.1-0.3=0.75", "random=0.25", *TRACKS),
        *("--transitions", 4_000, "--cars", 8, "--set", "race.time_limit_steps=300"),
    )
    assert code == 0, said
    assert "recorded: " in said
    code, out, said = rlcar("data", "info", "all", "--json")
    figures = json.loads(out)
    assert {row["policy"] for row in figures["drivers"]} == {"careful@0.1-0.3", "random"}
    assert figures["known_probability_rate"] == 1.0
    assert figures["sources"][0]["about"]["seed"] == 0
    code, out, _ = rlcar("data", "info", "all")
    assert "careful@0.1-0.3" in out
    assert rlcar("data", "validate", "all")[0] == 0
    code, _, said = rlcar("data", "coverage", "all")
    assert code == 0, said
    assert (tmp_path / "coverage.png").exists()
    assert rlcar("data", "split", "all", "train=0.8", "test=0.2")[0] == 0
    assert rlcar("data", "merge", "train", "test", "again")[0] == 0
    assert Dataset.open("again").transitions == figures["transitions"]
    assert rlcar("data", "export", "all", "rlcar/all-v0", "--root", "minari")[0] == 0
    assert rlcar("data", "import", "minari/rlcar/all-v0", "back")[0] == 0
    before, after = Dataset.open("all"), Dataset.open("back")
    for one, other in zip(before.episodes_iter(), after.episodes_iter(), strict=True):
        np.testing.assert_array_equal(one.action_logp, other.action_logp)


def test_the_policy_of_a_run_and_a_published_version_are_recorded(rlcar, tmp_path, tiny_config):
    write_run(tmp_path / "runs" / "mine", tiny_config)
    Registry("models").publish("runs/mine")
    small = ("--transitions", 500, "--cars", 2, *TRACKS)
    code, _, said = rlcar("data", "record", "by-run", "runs/mine@0.2", *small)
    assert code == 0, said
    code, _, said = rlcar("data", "record", "by-version", "1@0.2", *small)
    assert code == 0, said
    by_run, by_version = (
        next(Dataset.open(name).episodes_iter()) for name in ("by-run", "by-version")
    )
    np.testing.assert_array_equal(by_run.action, by_version.action)  # the same policy
    assert by_run.policy == "runs/mine@0.2"
    code, _, said = rlcar("data", "record", "exploring", "runs/mine@explore", *small)
    assert code == 0, said
    assert next(Dataset.open("exploring").episodes_iter()).action_logp is None


def test_a_policy_that_sees_several_frames_is_recorded_with_all_of_them(rlcar, tmp_path):
    config = make_config(
        mode="test",
        algorithm="ppo",
        environment="rlcar/Catch-v0",
        overrides=["environment.image_size_px=16", "ppo.image_units=8"],
    )
    write_run(tmp_path / "runs" / "catch", config)
    code, _, said = rlcar(
        "data", "record", "frames", "runs/catch@0.5", "--transitions", 60, "--cars", 2
    )
    assert code == 0, said
    data = Dataset.open("frames")
    assert data.spec == Spec(0, 3, True, (16, 16, 4))
    assert data.world.environment.frame_stack == 4
    for episode in data.episodes_iter():
        frames = episode.observation
        assert (frames[0] == frames[0][..., -1:]).all()  # an episode begins with copies
        np.testing.assert_array_equal(frames[1:, ..., :-1], frames[:-1, ..., 1:])
        assert (frames[1:, ..., -1] != frames[:-1, ..., -1]).any(axis=(1, 2)).all()
    # An algorithm with memory, which would see single frames, learns from these data too.
    _, settings = settings_of_data(tmp_path / "frames", None, None)
    assert open_data(make_config(overrides=settings)).spec == data.spec


def test_faults_are_printed_and_the_exit_code_is_1(rlcar, tmp_path):
    write(tmp_path / "data", [make_episode(5), make_episode(5)])
    code, out, _ = rlcar("data", "validate", "data")
    assert code == 1
    assert out == "part-00000.parquet (part 1 of 1), episode 1: it repeats episode 0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "data"), "data is empty: record a data set into it with rlcar data record"),
        (("info", "nowhere"), "nowhere does not exist: name the folder of a data set"),
        (("record", "new", "carful"), "there is no driver 'carful': name one of full_throttle"),
        (("record", "new", "careful@99"), "the noise '99' must be a number from 0"),
        (("record", "new", "careful=-1"), "the share '-1' must be a positive number"),
        (("record", "new", "careful", "careful=2"), "careful is named twice: give it one share"),
        (("record", "new", "careful@explore"), "only learned policies can explore"),
        (("record", "new", "careful", "--env", "Pendulum-v1"), "careful drives only in the race"),
        (("record", "new", "sees_the_track"), "needs the racing line of each of 10,000 tracks"),
        (("split", "data", "train"), "'train' is not FOLDER=SHARE with a positive number"),
        (("import", "data.csv", "new"), "data.csv does not exist"),
        (("coverage", "data", "--axes", "speed"), "name two observations, separated by a comma"),
        (("export", "full", "no id"), "'no id' is not an id of Minari"),
    ],
)
def test_a_mistake_is_one_sentence(rlcar, tmp_path, arguments, message):
    (tmp_path / "data").mkdir()
    write(tmp_path / "full", [make_episode(5)])
    code, _, said = rlcar("data", *arguments)
    assert code == 2
    assert message in " ".join(said.split())
    assert said.startswith("error: ")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_keeps_every_transition_and_resume_continues(tmp_path):
    command = [sys.executable, "-m", "rlcar.cli", "data", "record", "data", "careful@0.2"]
    command += ["--transitions", "50000000", "--cars", "16", "--track-count", "16"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline_s = time.monotonic() + 240
    while not (tmp_path / "data" / "part-00000.parquet").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "stopping: writing every transition so far; continue with --resume" in said
    data = Dataset.open(tmp_path / "data")
    assert f"with {data.transitions:,} transitions" in said
    # Without noise of the stop, each car's episodes follow one another without a gap.
    assert sum(episode.is_truncated for episode in data.episodes_iter()) >= 1
    command[command.index("50000000")] = str(data.transitions + 100)
    subprocess.run([*command, "--resume"], cwd=tmp_path, check=True)
    assert Dataset.open(tmp_path / "data").transitions >= data.transitions + 100


def test_an_import_knows_the_actions_of_an_environment_and_refuses_those_of_another(
    rlcar, tmp_path
):
    at_end = np.arange(20) == 19
    numbers = np.random.default_rng(0).random((20, 4), np.float32)
    arrays = {"observations": numbers, "rewards": numbers[:, 0], "terminals": at_end}
    arrays |= {"actions": np.zeros(20, int), "timeouts": at_end}
    np.savez(tmp_path / "cart.npz", **arrays)
    assert rlcar("data", "import", "cart.npz", "cart", "--env", "CartPole-v1")[0] == 0
    assert Dataset.open("cart").spec == Spec(4, 2, is_discrete=True)
    code, _, said = rlcar("data", "import", "cart.npz", "other", "--env", "Pendulum-v1")
    assert code == 2
    assert "cart.npz has observations of 4 numbers and 1 discrete actions, but Pendulum-v1" in said
    code, _, said = rlcar("data", "import", "cart.npz", "far", "--env", "Elsewhere-v0")
    assert code == 0
    assert "Elsewhere-v0 cannot be made here: its sizes are those of the recording" in said
