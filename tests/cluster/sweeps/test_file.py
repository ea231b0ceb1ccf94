"""Sweeps as files: what is refused and how it is said; the shipped ones are sound."""

import re
from pathlib import Path

import pytest
import yaml

from cluster.sweeps.file import load_sweep, parse_sweep
from cluster.sweeps.search_space import corners
from rlcar.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "tune_configs"
# The files of campaigns lie there too; tests/campaigns reads them.
SHIPPED = sorted(path for path in FOLDER.glob("*.yaml") if "campaign" not in path.stem)
RATE = "dreamer.optimizer.learning_rate"
BASE = {
    "name": "tiny",
    "mode": "test",
    "budget": {"trials": 4, "env_steps": 4096},
    "set": {"training.evaluate_every_env_steps": 1024},
    "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
}
PBT = {"type": "pbt", "perturb_every_env_steps": 1024}


def test_the_shipped_sweeps_are_the_promised_ones():
    names = ["actor_critic", "population", "simulator_scale", "smoke", "world_model"]
    assert [path.stem for path in SHIPPED] == names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_key_of_a_shipped_sweep_exists_and_changes_what_it_names(path):
    sweep = load_sweep(path)  # refuses unknown keys and corners that are no valid config
    for name, dimension in sweep.space.items():
        first = next(corners(sweep.space))
        for value in dimension.extremes():
            config, cluster = sweep.settings(first | {name: value})
            found = {"cluster": cluster, **dict(config)}
            for part in name.split("."):
                found = found[part] if isinstance(found, dict) else getattr(found, part)
            assert found == value, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": 3}, "unknown setting 'budgets'; did you mean 'budget'?"),
        ({"budget": {"trials": 4}}, "budget.env_steps: missing"),
        (
            {"budget": {"trials": 0, "env_steps": 4096}},
            "budget.trials = 0: Input should be greater than or equal to 1",
        ),
        (
            {"budget": {"trials": 4, "env_step": 4096}},
            "unknown setting 'budget.env_step'; did you mean 'env_steps'?",
        ),
        ({"budget": {"env_steps": 4096}}, "budget.trials: search random needs a number"),
        (
            {"budget": {"trials": 4, "env_steps": 512}},
            "budget.env_steps = 512: a trial would end before its first evaluation; raise it, or "
            "lower training.evaluate_every_env_steps (1024)",
        ),
        ({"preset": "nona"}, "unknown preset 'nona'; did you mean 'nano'?"),
        ({"set": {"trainin.cars": 3}}, "unknown setting 'trainin'; did you mean 'training'?"),
        (
            {"metric": "lap_rate"},
            "unknown metric 'lap_rate'; did you mean 'evaluation/lap_rate'?",
        ),
        (
            {"metric": "evaluation/lap_rate", "environment": "rlcar/Catch-v0"},
            "unknown metric 'evaluation/lap_rate'",
        ),
        ({"scheduler": "ahsa"}, "scheduler: Input tag 'ahsa'"),
        (
            {"scheduler": {"type": "asha", "grace": 3}},
            "unknown setting 'scheduler.grace'; did you mean 'grace_env_steps'?",
        ),
        (
            {"scheduler": {"type": "asha", "grace_env_steps": 512}},
            "scheduler.grace_env_steps = 512: it must lie between the first evaluation (1024) and "
            "budget.env_steps (4096)",
        ),
        (
            {"scheduler": PBT | {"perturb_every_env_steps": 4096}},
            "scheduler.perturb_every_env_steps = 4096: it must lie between",
        ),
        ({"scheduler": PBT, "search": "optuna"}, "search: pbt chooses settings itself"),
        (
            {"scheduler": PBT, "budget": {"trials": 1, "env_steps": 4096}},
            "budget.trials = 1: pbt needs a population of at least 2",
        ),
        (
            {"scheduler": PBT, "budget": {"trials": 4, "env_steps": 4096, "concurrent": 2}},
            "budget.concurrent: pbt decides itself how many",
        ),
        (
            {
                "scheduler": PBT,
                "space": {"dreamer.world_model.recurrent_units": {"choice": [64, 128]}},
            },
            "space: dreamer.world_model.recurrent_units cannot change within a training",
        ),
        (
            {"scheduler": PBT, "space": {"training.cars": {"choice": [8, 16]}}},
            "space: training.cars cannot change within a training",
        ),
        ({"search": "grid"}, f"space.{RATE}: a grid needs choice, not loguniform"),
        (
            {"search": "grid", "space": {RATE: {"choice": [1e-3, 1e-2]}}},
            "budget.trials = 4: this grid has 2 points",
        ),
        ({"space": {}}, "space: Dictionary should have at least 1 item"),
        (
            {"space": {"learning_rate": {"choice": [1e-3]}}},
            f"space: unknown setting 'learning_rate'; did you mean '{RATE}'?",
        ),
        (
            {"space": {RATE: {"unifrm": [0.1, 0.2]}}},
            f"unknown setting 'space.{RATE}.unifrm'; did you mean 'uniform'?",
        ),
        (
            {"space": {RATE: {"uniform": [0.0, 0.1]}}},
            f"space: invalid extreme values ({RATE}=0.0): {RATE} = 0.0: Input should be "
            "greater than 0",
        ),
        (
            {"space": {"replay.batch_length": {"integer": [4, 64]}}},
            "space: invalid extreme values (replay.batch_length=64): replay.batch_length 64 "
            "is longer than training.block_length 32",
        ),
        (
            {"space": {"cluster.simulators": {"choice": [0, 1]}}},
            "space: invalid extreme values (cluster.simulators=0): cluster.simulators = 0",
        ),
        ({"cluster": {"learner_cpus": 2.0}}, "cluster.simulators: give the number"),
        ({"cluster": {"simulators": 1, "address": "auto"}}, "cluster.address: name the cluster"),
        (
            {"space": {"ppo.learning_rate": {"choice": [1e-3]}}},
            "space: ppo.learning_rate has no effect, as the algorithm is dreamer",
        ),
        (
            {"space": {"training.env_steps": {"choice": [4096]}}},
            "space: training.env_steps cannot be searched: it is budget.env_steps",
        ),
        ({"name": "../up"}, "name = '../up'"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(changes, message):
    with pytest.raises(ConfigError) as caught:
        parse_sweep(BASE | changes)
    assert message in str(caught.value)


def test_options_win_over_the_file(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(
        "mode: test\nbudget: {trials: 4, env_steps: 4096}\n"
        "set: {training.evaluate_every_env_steps: 2048, training.cars: 4}\n"
        "space:\n  dreamer.optimizer.learning_rate: {loguniform: [1e-4, 1e-2]}\n"
    )
    sweep = load_sweep(path, trials=7, overrides={"training.cars": 2})
    assert (sweep.name, sweep.trials) == ("quick", 7)
    assert sweep.base().training.cars == 2
    assert sweep.base().training.evaluate_every_env_steps == 2048


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the config file .*none\.yaml"):
        load_sweep(tmp_path / "none.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("set: 3\nbudget: 4\n")
    with pytest.raises(ConfigError, match="set = 3"):
        load_sweep(wrong)


def test_the_example_of_the_documentation_is_a_sweep():
    page = (Path(__file__).parents[3] / "docs/how-to/tuning.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sweep = parse_sweep({"name": "example", **yaml.safe_load(example)})
    assert {dimension.kind for dimension in sweep.space.values()} == {
        "uniform",
        "loguniform",
        "integer",
        "choice",
    }


def test_a_trial_gets_the_shared_settings_and_its_own():
    sweep = parse_sweep(BASE | {"cluster": {"simulators": 2, "blocks_in_flight": 3}})
    config, cluster = sweep.settings({RATE: 0.5})
    assert config.dreamer.optimizer.learning_rate == 1e-2  # the end of its range
    assert config.training.env_steps == 4096
    assert (cluster.simulators, cluster.blocks_in_flight) == (2, 3)
    assert parse_sweep(BASE).settings({RATE: 1e-3})[1] is None


def test_a_grid_has_as_many_trials_as_points():
    space = {RATE: {"choice": [1e-3, 1e-2]}, "replay.batch_size": {"choice": [4, 8, 16]}}
    sweep = parse_sweep(BASE | {"search": "grid", "budget": {"env_steps": 4096}, "space": space})
    assert sweep.trials == 6


def test_a_retried_job_continues_its_sweep_or_begins_it(rlcar, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**BASE, "nonsense": 1}))
    command = ("tune", path, "--resume-or-begin", "--sweeps", tmp_path / "sweeps")
    assert "nonsense" in rlcar(*command)[2], "without a sweep, the file is read"
    stored = tmp_path / "sweeps" / "tiny" / "sweep.yaml"
    stored.parent.mkdir(parents=True)
    stored.write_text(yaml.safe_dump({**BASE, "leftover": 1}))
    assert "leftover" in rlcar(*command)[2], "a sweep that has begun keeps its own settings"
