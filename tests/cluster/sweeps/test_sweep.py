"""Sweeps as a user runs them: killed trials, Ctrl-C, populations, trials with simulators."""

import json
import os
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from cluster.sweeps.file import parse_sweep
from cluster.sweeps.sweep import new_sweep_folder, run_sweep, stored_sweep
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.runs.metrics_file import read_metrics
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.training.loop import train

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:Consider boosting PBT performance:UserWarning"),
]

ROOT = Path(__file__).parents[3]
SMOKE = "rlcar tune tune_configs/smoke.yaml"
RESUME = f"{SMOKE} --resume"
BEST = "rlcar train --config sweeps/smoke/best.yaml --name tuned"
PATIENCE_S = 280.0
RATE = "ppo.learning_rate"
METRIC = "evaluation/progress"
# The quickest to compile; 512 env steps are two blocks.
TINY = {
    "preset": "ppo",
    "mode": "test",
    "metric": METRIC,
    "set": {
        "training.evaluate_every_env_steps": 512,
        "training.block_length": 32,
        "ppo.epochs": 1,
    },
}


@pytest.fixture
def rlcar(start_rlcar, tmp_path):
    """Starts a command line of the documentation beside the shipped sweeps."""
    (tmp_path / "tune_configs").symlink_to(ROOT / "tune_configs")
    return lambda command: start_rlcar(*command.split()[1:])


def wait_for(question, process, output):
    end_s = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < end_s, output.read_text()
        time.sleep(0.02)
    return answer


def rows_of(folder, trial=None):
    path = folder / "history.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return [row for row in rows if trial in (None, row["trial"])]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())["trials"]


@pytest.mark.long
def test_a_sweep_finishes_though_one_trial_is_killed_twice(rlcar, tmp_path):
    sweep = {
        **TINY,
        "search": "optuna",
        # Nothing is stopped before it was killed.
        "scheduler": {"type": "asha", "grace_env_steps": 2048, "reduction_factor": 2},
        "budget": {"trials": 8, "env_steps": 2560},
        "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(sweep))
    process, output = rlcar("rlcar tune tiny.yaml")
    folder = tmp_path / "sweeps/tiny"
    victim = wait_for(lambda: rows_of(folder), process, output)[0]["trial"]
    killed = []
    for _ in range(2):
        row = wait_for(
            lambda: next(
                (trial for trial in rows_of(folder, victim) if trial["pid"] not in killed), None
            ),
            process,
            output,
        )
        os.kill(row["pid"], signal.SIGKILL)
        killed.append(row["pid"])
    assert process.wait(PATIENCE_S) == 0, output.read_text()
    assert output.read_text().count(f"trial {victim} starts again (its process died; ") == 2
    results = results_of(folder)
    assert len(results) == 8
    assert {trial["status"] for trial in results} <= {"done", "stopped"}
    assert {trial["name"]: trial["failures"] for trial in results}[victim] == 2
    # It went on where it was: nothing before its checkpoint was reported twice.
    steps = [row["env_steps"] for row in rows_of(folder, victim)]
    assert steps == sorted(set(steps))
    scores = [trial["score"] for trial in results]
    assert scores == sorted(scores, reverse=True)
    for name in ("index.html", "learning_curves.html", "parallel_coordinates.html", "results.csv"):
        assert (folder / name).stat().st_size > 500, name
    best = make_config(file=folder / "best.yaml", overrides=["training.env_steps=256"])
    assert best.ppo.learning_rate == results[0]["settings"][RATE]
    assert train(best, tmp_path / "best").summary["env_steps"] == 256
    # Each trial is a run like any other.
    assert checkpoint.latest(folder / "trials" / results[0]["name"] / "best") is not None


def test_every_command_about_sweeps_in_the_documentation_is_run_here():
    folders = ("docs/*.md", "docs/how-to/*.md", "*/README.md")
    pages = [ROOT / "README.md", *(page for folder in folders for page in ROOT.glob(folder))]
    lines = [
        line.split("  #")[0].strip()
        for page in pages
        for block in re.findall(r"```(?:shell|bash)\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    assert {line for line in lines if "tune" in line} == {SMOKE, RESUME, BEST}


@pytest.mark.slow
@pytest.mark.long
def test_ctrl_c_says_how_to_go_on_and_resume_does(rlcar, tmp_path):
    folder = tmp_path / "sweeps/smoke"
    process, output = rlcar(SMOKE)
    # One trial is over, and another under way.
    wait_for(lambda: len({row["trial"] for row in rows_of(folder)}) > 2, process, output)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130, output.read_text()
    assert f"continue with: {RESUME} --name smoke" in output.read_text()
    before = {trial["name"]: trial for trial in results_of(folder)}
    assert "unfinished" in {trial["status"] for trial in before.values()}
    assert {"done", "stopped"} & {trial["status"] for trial in before.values()}

    process, output = rlcar(f"{RESUME} --trials 9")
    assert process.wait(PATIENCE_S) == 0, output.read_text()
    assert "--trials ignored" in output.read_text()
    after = {trial["name"]: trial for trial in results_of(folder)}
    assert len(after) == 4
    assert {trial["status"] for trial in after.values()} <= {"done", "stopped"}
    for name, trial in before.items():
        assert after[name]["settings"] == trial["settings"]
        assert after[name]["curve"][: len(trial["curve"])] == trial["curve"]

    process, output = rlcar(f"{BEST} --mode test --local --set training.env_steps=256")
    assert process.wait(PATIENCE_S) == 0, output.read_text()
    assert "figure lap_rate=" in output.read_text()


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.long
def test_the_worse_of_a_population_goes_on_from_the_better_ones_checkpoint(tmp_path):
    sweep = parse_sweep(
        {
            **TINY,
            "name": "population",
            "scheduler": {
                "type": "pbt",
                "perturb_every_env_steps": 1536,
                "quantile": 0.5,
                "resample_probability": 0.0,
            },
            # They take turns, for only one at a time finds room.
            "budget": {"trials": 2, "env_steps": 4608, "cpus": 2.0},
            # Too slow to learn anything: what a policy does, it has from its seed.
            "space": {RATE: {"choice": [1e-12, 2e-12]}, "seed": {"integer": [0, 9999]}},
        }
    )
    folder = new_sweep_folder(tmp_path, "population", sweep)
    outcome = run_sweep(stored_sweep(folder), folder)
    assert {(trial.status, trial.failures) for trial in outcome.results} == {("done", 0)}
    seeds = {name: [row["settings"]["seed"] for row in rows_of(folder, name)] for name in MEMBERS}
    first = {name: found[0] for name, found in seeds.items()}
    assert first["000"] != first["001"]
    copied = [name for name in MEMBERS if seeds[name][-1] != first[name]]
    assert len(copied) == 1
    # It went on where the other was, not where it had begun.
    assert len(rows_of(folder, copied[0])) == 9
    policies = [policy_of(folder / "trials" / name) for name in MEMBERS]
    assert all(np.allclose(*pair, atol=1e-6) for pair in zip(*policies, strict=True))
    initial = [policy_from(sweep, seed) for seed in first.values()]
    assert not all(np.allclose(*pair, atol=1e-2) for pair in zip(*initial, strict=True))


MEMBERS = ("000", "001")


def policy_of(run):
    arrays = read_arrays(checkpoint.latest(run / "checkpoints").path / "state.safetensors")
    return [array for name, array in sorted(arrays.items()) if name.startswith("policy.")]


def policy_from(sweep, seed):
    config, _ = sweep.settings({RATE: 1e-12, "seed": seed})
    learner = make_agent(config, SPEC).learner
    return jax.tree.leaves(learner.policy_params(learner.init(seed)))


@pytest.mark.long
@pytest.mark.usefixtures("embedded_ray")
def test_trials_with_simulators_of_their_own_and_one_that_diverges(tmp_path):
    sweep = parse_sweep(
        {
            **TINY,
            "name": "placed",
            "search": "grid",
            "budget": {"env_steps": 1024, "concurrent": 1},
            "cluster": {"simulators": 1, "learner_cpus": 0.5, "simulator_cpus": 0.5},
            "space": {RATE: {"choice": [1e-3, 1e30]}, "cluster.simulators": {"choice": [2]}},
        }
    )
    folder = new_sweep_folder(tmp_path, "placed", sweep)
    best, other = run_sweep(sweep, folder).results
    assert (best.status, best.settings[RATE]) == ("done", 1e-3)
    assert other.status == "diverged"
    assert other.failures == 0, "what diverges is not tried again"
    assert "training stopped" in other.reason
    rows = read_metrics(folder / "trials" / best.name / "metrics.jsonl")
    delivering = [row.get("cluster/simulators_delivering", 0) for row in rows]
    assert max(delivering) >= 1
    assert "--simulators 2" in (folder / "best.yaml").read_text()


def test_a_folder_of_another_sweep_is_never_overwritten(tmp_path):
    sweep = parse_sweep({**TINY, "name": "one", "budget": {"trials": 1, "env_steps": 512}} | SPACE)
    folder = new_sweep_folder(tmp_path, "one", sweep)
    assert stored_sweep(folder) == sweep
    with pytest.raises(UserError, match="already holds a sweep: continue it with --resume"):
        new_sweep_folder(tmp_path, "one", sweep)
    with pytest.raises(UserError, match="holds no sweep to continue"):
        stored_sweep(tmp_path / "none")
    with pytest.raises(UserError, match="is not a plain folder name"):
        new_sweep_folder(tmp_path, "../two", sweep)


SPACE = {"space": {RATE: {"uniform": [1e-4, 1e-2]}}}
