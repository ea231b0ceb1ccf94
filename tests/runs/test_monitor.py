"""Runs as an operator sees them, from what they have left and while they are written."""

import json
import shutil
import time

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.rollout.compiled import Episodes
from rlcar.runs.metrics import MetricsWriter, read_progress_line
from rlcar.runs.monitor import (
    _ROWLESS_AT_LEAST_S,
    _ROWLESS_AT_START_S,
    Card,
    RunReader,
    RunsReader,
    read_cards,
    status_of_progress,
)
from rlcar.runs.run import Run
from rlcar.storage import checkpoint
from rlcar.system import process_state
from rlcar.types import Evaluation, Weights

EPISODES = Episodes(768, np.array([1.0, 3.0]), np.array([40, 60]), np.array([True, False]))


@pytest.fixture
def run_folder(tmp_path):
    """A run of 768 env steps that has come to its end."""
    folder = tmp_path / "tiny"
    weights = Weights(48, {"layer": np.zeros(2, np.float32)})
    with Run(folder, make_config(mode="test", overrides=["training.env_steps=768"])) as run:
        run.drove(EPISODES)
        run.trained(48, {"learner/idle_share": 0.5})
        run.log(512, 48)
        run.evaluated(512, weights, Evaluation({"evaluation/lap_rate": 0.25}, cost=1.0))
        run.log(768, 64)
        checkpoint.save(run.checkpoints, 768, {}, config_json="{}", meta=run.meta())
    return folder


@pytest.fixture
def young(run_folder):
    """A run that this process has just begun, without a row."""
    (run_folder / "metrics.jsonl").unlink()
    process_state.write(run_folder, process_state.describe("running"))
    return run_folder


def written(folder, env_steps, time_s, **metrics):
    clock = iter([0.0, time_s])
    with MetricsWriter(folder, clock=lambda: next(clock)) as writer:
        writer.write(env_steps, metrics)


def test_a_finished_run_shows_what_its_last_rows_say(run_folder):
    status = RunReader(run_folder).status()
    assert status.state == "finished"
    assert status.env_steps == status.total_env_steps == 768
    assert status.eta_s is None
    assert (status.episodes, status.reward, status.lap_rate) == (2, 2.0, 0.5)
    assert status.evaluation_lap_rate == 0.25
    assert status.learner_idle_share == 0.5
    assert 0.0 <= status.checkpoint_age_s < 60.0


def test_a_run_begins_goes_on_and_freezes(young):
    reader, now_s = RunReader(young), time.time()
    assert reader.status(now_s).state == "starting"
    assert reader.status(now_s + _ROWLESS_AT_START_S + 5).state == "frozen"
    written(young, 100, 1.0, **{"episode/reward": 2.0})
    written(young, 200, 1.0, **{"episode/reward": 3.0})
    status = reader.status()
    assert (status.state, status.env_steps, status.reward) == ("running", 200, 3.0)
    assert status.eta_s == pytest.approx(568 / 100)
    frozen = reader.status(time.time() + _ROWLESS_AT_LEAST_S + 5)
    assert frozen.state == "frozen"
    assert frozen.silent_s > _ROWLESS_AT_LEAST_S


def test_the_end_of_a_training_by_episodes_follows_from_their_length(young):
    settings = json.loads((young / "config.json").read_text())
    settings["training"]["episodes"] = 30
    settings["training"]["env_steps"] = 1_000_000
    (young / "config.json").write_text(json.dumps(settings))
    reader = RunReader(young)
    written(young, 100, 1.0, **{"episode/count": 0})
    assert reader.status().eta_s is None  # no episode has ended yet
    written(young, 200, 1.0, **{"episode/count": 10, "episode/length_env_steps": 19.0})
    status = reader.status()
    # 20 episodes are missing, each of 19 steps and the time step with which it begins.
    assert status.total_env_steps == 200 + 20 * 20
    assert status.eta_s == pytest.approx(400 / 100)


def test_a_long_log_interval_is_no_frost(young):
    settings = json.loads((young / "config.json").read_text())
    settings["training"]["log_every_s"] = 10.0
    (young / "config.json").write_text(json.dumps(settings))
    written(young, 100, 1.0)
    reader = RunReader(young)
    assert reader.status(time.time() + 500).state == "running"
    assert reader.status(time.time() + 700).state == "frozen"


def test_a_run_whose_process_is_gone_is_dead(young):
    about = process_state.read(young)
    (young / "process.json").write_text(json.dumps(about | {"start_ticks": 1}))
    written(young, 100, 1.0)
    assert RunReader(young).status().state == "dead"


def test_a_run_that_failed_says_why_and_one_that_was_stopped_says_so(young):
    process_state.write(young, process_state.describe("failed", ValueError("no more disk")))
    status = RunReader(young).status()
    assert (status.state, status.error) == ("failed", "ValueError: no more disk")
    process_state.write(young, process_state.describe("ended"))
    written(young, 100, 1.0)
    assert RunReader(young).status().state == "stopped"


def test_only_new_rows_are_read_and_a_torn_one_is_awaited(young):
    written(young, 100, 1.0)
    reader = RunReader(young)
    assert reader.status().env_steps == 100
    with (young / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 300, "time')
        file.flush()
        assert reader.status().env_steps == 100
        file.write('_s": 4.0}\n')
    assert reader.status().env_steps == 300


def test_a_resumed_run_that_dropped_rows_is_read_anew(young):
    written(young, 100, 1.0, **{"episode/reward": 1.0})
    written(young, 500, 1.0, **{"model/loss": 1.0})
    reader = RunReader(young)
    assert reader.status().env_steps == 500
    MetricsWriter(young, resume_env_steps=100).close()
    assert reader.status().env_steps == 100


def test_of_a_very_long_file_only_the_end_is_read(young, monkeypatch):
    monkeypatch.setattr("rlcar.runs.monitor._TAIL_BYTES", 150)
    for count in range(20):
        written(young, 100 * count, 1.0)
    assert RunReader(young).status().env_steps == 1900


def test_all_runs_of_a_folder_are_seen_those_too_that_begin_later(run_folder):
    readers = RunsReader(run_folder.parent)
    (run_folder.parent / "something else").mkdir()
    assert [status.name for status in readers.statuses()] == ["tiny"]
    shutil.copytree(run_folder, run_folder.parent / "later")
    assert {status.name for status in readers.statuses()} == {"tiny", "later"}
    shutil.rmtree(run_folder)
    assert [status.name for status in readers.statuses()] == ["later"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder of runs"):
        RunsReader(tmp_path / "nosuch").statuses()
    with pytest.raises(UserError, match="is not a run"):
        RunReader(tmp_path)


def test_the_last_progress_line_of_a_log_makes_a_status():
    line = "512/2048 env steps (25%), ETA 1:02:03  env/s 128  train/s 6.4  reward -0.50  laps 42%"
    status = status_of_progress("job", "running", read_progress_line(line))
    assert (status.env_steps, status.total_env_steps, status.eta_s) == (512, 2048, 3723.0)
    assert (status.env_steps_per_s, status.train_steps_per_s) == (128.0, 6.4)
    assert (status.reward, status.lap_rate) == (-0.5, 0.42)
    assert status.episodes is None


def test_a_job_without_a_progress_line_has_not_begun():
    assert status_of_progress("job", "running", None).state == "starting"
    no_eta = read_progress_line("0/2048 env steps (0%), ETA -:--:--  env/s 0  train/s 0.0")
    assert status_of_progress("job", "running", no_eta).eta_s is None


def test_cards_are_read_with_what_they_do_not_tell():
    said = "0, NVIDIA H200, 87, 40960, 143771\n1, NVIDIA T1000, [N/A], [N/A], 4096\n"
    assert read_cards(said) == [
        Card(0, "NVIDIA H200", 0.87, 40960.0, 143771.0),
        Card(1, "NVIDIA T1000", 0.0, 0.0, 4096.0),
    ]
