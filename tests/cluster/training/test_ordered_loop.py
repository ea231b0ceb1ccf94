"""The deterministic loop on Ray: two runs are equal bit for bit, and what it refuses."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.training.loop import train
from cluster.training.ordered_fleet import OrderedFleet
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.runs.run import find_save
from rlcar.storage import checkpoint
from tests.support import odd_environments
from tests.support.equal_runs import assert_equal_runs, learned

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("embedded_ray"),
]

TWO = ClusterConfig(simulators=2)
SETTINGS = (
    "training.env_steps=1024",
    "training.evaluate_every_env_steps=512",
    "training.cars=4",
    "training.block_length=32",
    "replay.min_env_steps=256",
    "training.deterministic=true",
)


def config_of(algorithm, *overrides):
    return make_config(mode="test", algorithm=algorithm, overrides=[*SETTINGS, *overrides])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "dreamer"])
def test_two_runs_with_two_simulators_are_equal_bit_for_bit(algorithm, tmp_path):
    for name, save_s in (("a", 0.01), ("b", 60.0)):  # when checkpoints are written is no matter
        config = config_of(algorithm, f"training.checkpoint_every_s={save_s}")
        assert train(config, TWO, tmp_path / name).summary["env_steps"] == 1024
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_resuming_one_checkpoint_twice_gives_equal_continuations_and_other_seeds_other_runs(
    tmp_path,
):
    train(config_of("ppo"), TWO, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in "ab":
        folder = tmp_path / name
        longer = config_of("ppo", "training.env_steps=1536")
        train(longer, TWO, folder, find_save(tmp_path, str(folder), None))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    train(config_of("ppo", "seed=1"), TWO, tmp_path / "c")
    train(config_of("ppo"), TWO, tmp_path / "d")
    assert str(learned(tmp_path / "c")) != str(learned(tmp_path / "d"))


@pytest.mark.slow
def test_a_lost_simulator_ends_the_training_with_a_checkpoint_and_a_sentence(tmp_path, monkeypatch):
    actors = []
    start = OrderedFleet.__init__

    def record(fleet, *arguments):
        start(fleet, *arguments)
        actors.extend(fleet._actors)

    killed = []

    def kill_one(figures):
        if killed:
            return
        killed.append(1)
        where = ray.get(actors[1].location.remote(), timeout=60)
        os.kill(where.pid, signal.SIGKILL)

    monkeypatch.setattr(OrderedFleet, "__init__", record)
    config = config_of("ppo", "training.env_steps=1000000")
    with pytest.raises(UserError, match=r"lost \(simulator 1: ActorDiedError\)") as caught:
        train(config, TWO, tmp_path / "run", on_evaluated=kill_one)
    assert f"continue from the last checkpoint with --resume {tmp_path / 'run'}" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert checkpoint.latest_sound(tmp_path / "run" / "checkpoints").env_steps >= 512


def test_a_number_of_simulators_that_changes_is_refused(tmp_path):
    with pytest.raises(UserError, match="needs a fixed number of simulators"):
        train(config_of("ppo"), ClusterConfig(simulators="auto"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_global_generators_and_a_module_of_the_current_folder(
    tmp_path, ray_environment, monkeypatch
):
    """The console script finds it, also in simulators; each environment is closed there too."""
    shutil.copy(odd_environments.__file__, tmp_path / "my_environments.py")
    sources = Path(__file__).parents[3]
    # As the console script does: its own folder comes first, and the current one is not searched.
    script = f"import sys; sys.path[0] = {str(sources)!r}; from rlcar.cli import main; main()"
    for name, more in {"a": ["--deterministic"], "b": ["--deterministic"], "c": []}.items():
        ledger = tmp_path / f"ledger-{name}"
        ledger.mkdir()
        settings = [word for one in SETTINGS[:-1] for word in ("--set", one)]
        command = [
            *(sys.executable, "-c", script, "train", "--mode", "test", "--algorithm", "ppo"),
            *("--env", "my_environments:Odd/global-v0", "--simulators", "2", "--seed", "3"),
            *("--name", name, *more, *settings),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ
            | ray_environment
            | {odd_environments.LEDGER: str(ledger), "PYTHONPATH": str(sources)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        still_open, made = odd_environments.open_environments(ledger)
        # The cars of two simulators, and the episodes of two evaluations and of the report.
        assert made >= 2 * 4 + 3 * 16
        assert not still_open
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # it gets the folder, to compare the runs
    assert_equal_runs(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
