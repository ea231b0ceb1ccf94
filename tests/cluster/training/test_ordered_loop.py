"""The deterministic loop on Ray: two runs are equal bit for bit, and what it refuses."""

import functools
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

LONG = pytest.mark.long
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


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """Returns a function that trains an algorithm once; no test may change the run."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run_of(algorithm):
        assert train(config_of(algorithm), TWO, folder / algorithm).summary["env_steps"] == 1024
        return folder / algorithm

    return run_of


@pytest.mark.slow
# One learns from its newest blocks, the others from a replay buffer.
@pytest.mark.parametrize("algorithm", ["ppo", "sac", pytest.param("dreamer", marks=LONG)])
def test_two_runs_with_two_simulators_are_equal_bit_for_bit(algorithm, run_of, tmp_path):
    # When checkpoints are written is no matter.
    config = config_of(algorithm, "training.checkpoint_every_s=0.01")
    assert train(config, TWO, tmp_path / "other").summary["env_steps"] == 1024
    assert_equal_runs(run_of(algorithm), tmp_path / "other")


@pytest.mark.slow
def test_resuming_one_checkpoint_twice_gives_equal_continuations_and_other_seeds_other_runs(
    run_of, tmp_path
):
    for name in "ab":
        folder = shutil.copytree(run_of("ppo"), tmp_path / name)
        longer = config_of("ppo", "training.env_steps=1536")
        train(longer, TWO, folder, find_save(tmp_path, str(folder), None))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    train(config_of("ppo", "seed=1"), TWO, tmp_path / "c")
    assert str(learned(tmp_path / "c")) != str(learned(run_of("ppo")))


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
    ledger, made_before = ray_environment[odd_environments.LEDGER], 0
    fixed = ["--simulators", "2", "--deterministic"]
    for name, more in {"a": fixed, "b": fixed, "c": ["--simulators", "1"]}.items():
        settings = [word for one in SETTINGS[:-1] for word in ("--set", one)]
        command = [
            *(sys.executable, "-c", script, "train", "--mode", "test", "--algorithm", "ppo"),
            *("--env", "my_environments:Odd/global-v0", "--seed", "3", "--name", name),
            *("--address", ray.get_runtime_context().gcs_address, *more, *settings),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | ray_environment | {"PYTHONPATH": str(sources)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        still_open, made = odd_environments.open_environments(ledger)
        # The cars of each simulator, and the episodes of two evaluations and of the report.
        assert made - made_before >= int(more[1]) * 4 + 3 * 16
        assert not still_open
        made_before = made
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # it gets the folder, to compare the runs
    assert_equal_runs(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
