"""Sweeps that were interrupted before the package was divided into folders can be resumed.

`tests/golden/formats/sweep` was written by commit e9f1239 with `rlcar tune` and Ctrl-C: of three
trials, 001 was done, 002 had a checkpoint, and the third had not begun. Result pages, runs and the
checkpoints of the trial that was done are left out.
"""

import shutil
import sys
from pathlib import Path

import pytest
from ray import tune

from cluster.sweeps import tune_parts
from cluster.sweeps.old_modules import old_module_names
from cluster.sweeps.sweep import run_sweep, stored_sweep
from rlcar.runs.metrics_file import read_metrics

OLD = Path(__file__).parents[2] / "golden" / "formats" / "sweep"
RUNNING_TRIAL = "b05b418b"  # Tune's id of trial 002


def train_nothing(config):
    pass


def restored_search(folder):
    sweep = stored_sweep(OLD)
    search = tune_parts.searcher(sweep, folder)
    search.set_search_properties(sweep.metric, sweep.direction, tune_parts.search_space(sweep))
    search.restore_from_dir(str(OLD / "tune"))
    return search


# Ray announces a future default; nothing here asks for a GPU.
@pytest.mark.filterwarnings("ignore:.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning")
def test_the_search_of_an_old_sweep_is_restored_and_creates_the_trial_that_had_not_begun(tmp_path):
    tune.register_trainable("run_trial", train_nothing)
    with old_module_names():
        search = restored_search(tmp_path)
    assert search.next_trial() is None  # only one trial at a time: 002 is not done
    search.on_trial_complete(RUNNING_TRIAL, {"evaluation/progress": 0.9, "training_iteration": 9})
    trial = search.next_trial()
    assert str(trial) == "003"
    assert trial.storage.storage_fs_path == str(tmp_path)
    assert list(trial.config) == ["ppo.learning_rate"]
    assert search.next_trial() is None
    assert "cluster.sweep" not in sys.modules


def test_without_the_old_module_names_it_cannot_be_restored(tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r"cluster\.sweep'"):
        restored_search(tmp_path)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
# Trial 002 had reported this step before it returned to its checkpoint.
@pytest.mark.filterwarnings("ignore:The reported value is ignored because this:UserWarning")
def test_an_old_sweep_is_resumed_to_its_end(embedded_ray, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    outcome = run_sweep(stored_sweep(folder), folder)
    assert not outcome.interrupted
    assert sorted(result.name for result in outcome.results) == ["001", "002", "003"]
    assert {result.failures for result in outcome.results} == {0}
    assert {result.status for result in outcome.results} <= {"done", "stopped"}
    # Trial 002 continued from its checkpoint: nothing that was reported before it is repeated.
    (resumed,) = [result for result in outcome.results if result.name == "002"]
    env_steps = [row["env_steps"] for row in resumed.curve]
    assert env_steps[:3] == [512, 1024, 1536]
    rows = [row for row in read_metrics(folder / "history.jsonl") if row["trial"] == "002"]
    assert [row["env_steps"] for row in rows].count(512) == 1
