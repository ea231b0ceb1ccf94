"""Trials lie where the sweep is now, not where it began."""

import pytest
from ray.tune.experiment import Experiment

from cluster.sweeps import tune_parts
from tests.cluster.sweeps.tiny_sweep import GROUPS, METRIC, RATE, make_sweep

# Ray announces a future default; nothing here asks for a GPU.
pytestmark = pytest.mark.filterwarnings("ignore:.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning")
GRID = {
    "search": "grid",
    "scheduler": "none",
    "budget": {"env_steps": 4096},
    "space": {RATE: {"choice": [1e-3, 1e-4]}, GROUPS: {"choice": [4, 8]}},
}


def train_nothing(config):
    pass


def search_in(folder, sweep):
    return tune_parts.searcher(sweep, folder)


@pytest.mark.parametrize(
    "changes", [{"search": "random"}, GRID, {"search": "optuna"}], ids=["random", "grid", "optuna"]
)
def test_a_search_that_was_kept_makes_its_next_trials_in_the_folder_that_it_is_continued_in(
    tmp_path, changes
):
    sweep, (first, second) = make_sweep(**changes), (tmp_path / "first", tmp_path / "second")
    space = tune_parts.search_space(sweep)
    search = search_in(first, sweep)
    search.set_search_properties(METRIC, sweep.direction, space)
    experiment = Experiment(
        "tune",
        train_nothing,
        config=space,
        num_samples=1 if sweep.search == "grid" else 4,
        storage_path=str(first),
    )
    search.add_configurations(experiment)
    began = search.next_trial()
    assert began.storage.storage_fs_path == str(first)
    kept = tmp_path / "kept"
    kept.mkdir()
    search.save_to_dir(str(kept), session_str="then")

    moved = search_in(second, sweep)
    moved.set_search_properties(METRIC, sweep.direction, tune_parts.search_space(sweep))
    moved.restore_from_dir(str(kept))
    # Twice: what is kept in the second folder must not name the first one, or itself, either.
    trial = moved.next_trial()
    assert trial.storage.storage_fs_path == str(second)
    moved.save_to_dir(str(kept), session_str="then")
    third = search_in(tmp_path / "third", sweep)
    third.set_search_properties(METRIC, sweep.direction, tune_parts.search_space(sweep))
    third.restore_from_dir(str(kept))
    assert third.next_trial().storage.storage_fs_path == str(tmp_path / "third")
