"""The bookkeeping of one run: its folder, what it goes on from, and its figures."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rlcar.errors import CheckpointError, UserError
from rlcar.evaluation.laps import Laps, score_laps
from rlcar.rollout.compiled import Episodes
from rlcar.runs import run as run_module
from rlcar.runs.metrics import MetricsWriter
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.run import Run, find_save, new_run_folder, require_run
from rlcar.storage import checkpoint
from rlcar.system import process_state
from rlcar.types import Weights
from tests.support.tiny_run import make_tiny_config
from tests.support.waiting import wait_until

CONFIG = make_tiny_config()


def save_at(folder, env_steps, train_seconds=100.0, **meta):
    meta = {"train_seconds": train_seconds, "train_steps": 0, "seed": 0, **meta}
    return checkpoint.save(folder, env_steps, {"x": np.zeros(2)}, config_json="{}", meta=meta)


def make_run(folder, *env_steps):
    with Run(folder, CONFIG):
        pass
    return [save_at(folder / "checkpoints", steps) for steps in env_steps]


def laps_of(lap_time_steps):
    steps = np.array(lap_time_steps, np.int32)
    line = np.zeros((2, len(steps)), np.float32)
    share = (steps > 0).astype(np.float32)
    return Laps(steps, steps == 0, share, steps, share, share, line, line, line)


def test_a_new_run_gets_a_folder_of_its_own(tmp_path):
    assert new_run_folder(tmp_path, "mine", CONFIG) == tmp_path / "mine"
    assert new_run_folder(tmp_path, None, CONFIG).name.startswith("nano-seed0-")


def test_a_name_that_already_is_a_run_is_refused_with_the_way_to_continue_it(tmp_path):
    make_run(tmp_path / "mine", 5)
    with pytest.raises(
        UserError, match=r"already holds a run: continue it with: rlcar train --resume .*mine"
    ):
        new_run_folder(tmp_path, "mine", CONFIG)


def test_a_run_that_died_before_its_first_checkpoint_is_begun_again_as_both_messages_say(tmp_path):
    make_run(tmp_path / "mine")
    again = f"start it again with: rlcar train --resume auto --name mine --runs {tmp_path}"
    with pytest.raises(UserError, match=f"already holds a run: {again}"):
        new_run_folder(tmp_path, "mine", CONFIG)
    with pytest.raises(CheckpointError, match=again):
        find_save(tmp_path, str(tmp_path / "mine"), None)
    assert find_save(tmp_path, "auto", "mine") is None
    assert new_run_folder(tmp_path, "mine", CONFIG, may_restart=True) == tmp_path / "mine"


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path):
    first, *_ = make_run(tmp_path, 256)
    program = "import sys, time; from pathlib import Path; from rlcar.system import process_state; "
    program += "process_state.write(Path(sys.argv[1]), process_state.describe('running')); "
    program += "print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=-1) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=f"is being trained by process {other.pid} of this"):
            Run(tmp_path, CONFIG)
        assert checkpoint.latest(tmp_path / "checkpoints") == first
        other.kill()
        # Though nobody has asked yet how it ended.
        wait_until(lambda: process_state.is_gone(process_state.read(tmp_path)))
        with Run(tmp_path, CONFIG, first):
            pass


def test_a_damaged_best_policy_costs_that_policy_alone(tmp_path):
    first, *_ = make_run(tmp_path, 256)
    best = save_at(tmp_path / "best", 256, metric=3.0)
    (best.path / "meta.json").write_text("{}")
    with Run(tmp_path, CONFIG, first) as run:
        assert run._best == float("inf")


def test_a_best_policy_is_no_checkpoint_to_go_on_from(tmp_path):
    make_run(tmp_path, 256)
    best = save_at(tmp_path / "best", 256, metric=3.0)
    with pytest.raises(
        UserError, match="holds only a policy: continue its run with: rlcar train --resume "
    ):
        find_save(tmp_path, str(best.path), None)


def test_only_a_run_without_any_checkpoint_may_start_again_in_its_folder(tmp_path):
    make_run(tmp_path / "mine")
    assert new_run_folder(tmp_path, "mine", CONFIG, may_restart=True) == tmp_path / "mine"
    save_at(tmp_path / "mine" / "checkpoints", 5)
    with pytest.raises(UserError, match="already holds a run"):
        new_run_folder(tmp_path, "mine", CONFIG, may_restart=True)


@pytest.mark.parametrize("name", ["a/b", "../a", "/a", "..", ".", "a/", ""])
def test_a_name_that_is_a_path_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is not a plain folder name"):
        new_run_folder(tmp_path, name, CONFIG)


def test_auto_finds_the_save_that_was_written_last_in_any_run(tmp_path):
    (old,) = make_run(tmp_path / "old", 900)
    first, second = make_run(tmp_path / "new", 100, 200)
    os.utime(old.path, (1, 1))
    assert find_save(tmp_path, "auto", None).path == second.path
    assert find_save(tmp_path, "auto", "old").path == old.path
    assert find_save(tmp_path, "auto", "nosuch") is None
    assert find_save(tmp_path / "nowhere", "auto", None) is None


def test_a_run_means_its_newest_save_and_a_save_means_itself(tmp_path):
    first, second = make_run(tmp_path / "mine", 100, 200)
    assert find_save(tmp_path, str(tmp_path / "mine"), None).path == second.path
    assert find_save(tmp_path, str(first.path), None).path == first.path
    assert require_run(first.path) == tmp_path / "mine"


def test_a_folder_that_is_no_run_and_a_run_without_a_save_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run or a checkpoint of one"):
        find_save(tmp_path, str(tmp_path), None)
    make_run(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="no complete checkpoint yet"):
        find_save(tmp_path, str(tmp_path / "mine"), None)


@pytest.mark.parametrize(
    ("lap_rates", "env_steps", "seconds"),
    [
        ([0.5, 0.9, 0.95, 1.0], 200, 20.0),
        ([0.9, 0.95, 0.89, 0.9, 0.91], 400, 40.0),
        ([0.9, 0.95, 0.5], None, None),
        ([0.0, 0.899], None, None),
        ([1.0], 100, 10.0),
        ([], None, None),
    ],
)
def test_the_time_to_90_counts_from_when_the_lap_rate_stays_there(
    tmp_path, lap_rates, env_steps, seconds
):
    with Run(tmp_path, CONFIG) as run:
        rows = []
        for index, rate in enumerate(lap_rates, start=1):
            time = {"time_s": 10.0 * index, "run/train_seconds": 10.0 * index}
            rows.append({"env_steps": 100 * index, **time, "evaluation/lap_rate": rate})
            rows.append({"env_steps": 100 * index + 50, **time, "episode/lap_rate": 0.0})
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = run.summary(12345)
    assert (summary["env_steps_to_90"], summary["seconds_to_90"]) == (env_steps, seconds)
    assert summary["env_steps"] == 12345


def test_an_evaluation_is_a_row_of_its_own_and_the_best_policy_is_kept(tmp_path):
    with Run(tmp_path, CONFIG) as run:
        for steps, times in ((100, [0, 300]), (200, [200, 300]), (300, [0, 0])):
            run.evaluated(
                steps, Weights(steps, {"w": np.float32(steps)}), score_laps(laps_of(times))
            )
            run.log(steps, 0)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "evaluation/lap_rate" in row]
    assert [row["evaluation/lap_rate"] for row in rows] == [0.5, 1.0, 0.0]
    # A track that was not lapped is charged the time limit of 1000 steps.
    assert [row["evaluation/charged_lap_steps"] for row in rows] == [650.0, 250.0, 1000.0]
    (best,) = checkpoint.saves(tmp_path / "best")
    assert (best.env_steps, best.meta["metric"]) == (200, 250.0)


def test_a_resumed_run_gives_up_the_rows_the_saves_and_the_best_of_its_former_future(tmp_path):
    with Run(tmp_path, CONFIG) as run:
        for steps in (100, 200, 300):
            run.log(steps, 0)
    first, second, third = (save_at(tmp_path / "checkpoints", steps) for steps in (100, 200, 300))
    save_at(tmp_path / "best", 300, metric=100.0)
    with Run(tmp_path, CONFIG, second) as run:
        run.log(256, 0)
        run.evaluated(256, Weights(1, {"w": np.float32(1.0)}), score_laps(laps_of([500])))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["env_steps"] for row in rows] == [100, 200, 256, 256]
    assert [s.env_steps for s in checkpoint.saves(tmp_path / "checkpoints")] == [100, 200]
    assert [s.env_steps for s in checkpoint.saves(tmp_path / "best")] == [256]


def test_who_goes_on_from_the_newest_checkpoint_finds_the_best_until_then(tmp_path):
    with Run(tmp_path, CONFIG) as run:
        for steps, lap in ((100, 500), (200, 400)):
            run.evaluated(steps, Weights(1, {"w": np.float32(steps)}), score_laps(laps_of([lap])))
        save = save_at(run.checkpoints, 250)
        for steps, lap in ((300, 300), (400, 200)):
            run.evaluated(steps, Weights(1, {"w": np.float32(steps)}), score_laps(laps_of([lap])))
    assert [one.env_steps for one in checkpoint.saves(tmp_path / "best")] == [200, 400]
    with Run(tmp_path, CONFIG, save) as run:
        run.evaluated(350, Weights(1, {"w": np.float32(1.0)}), score_laps(laps_of([450])))
    assert [one.env_steps for one in checkpoint.saves(tmp_path / "best")] == [200]


def test_auto_passes_over_a_damaged_checkpoint_and_one_that_is_named_is_refused(tmp_path):
    first, second = make_run(tmp_path / "mine", 100, 200)
    (second.path / "state.safetensors").write_bytes(b"no")
    assert find_save(tmp_path, "auto", None).path == first.path
    assert find_save(tmp_path, str(second.path), None).path == second.path


def test_a_run_that_starts_again_keeps_nothing_of_the_killed_one(tmp_path):
    with Run(tmp_path, CONFIG) as run:
        run.log(100, 0)
        run.evaluated(100, Weights(1, {"w": np.float32(1.0)}), score_laps(laps_of([500])))
    with Run(tmp_path, CONFIG):
        pass
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert checkpoint.saves(tmp_path / "best") == []


def test_the_training_time_goes_on_where_the_save_was_written(tmp_path, monkeypatch):
    (save,) = make_run(tmp_path, 100)
    monkeypatch.setattr(run_module.time, "monotonic", lambda: 1000.0)
    with Run(tmp_path, CONFIG, save) as run:
        assert run.train_seconds == 100.0
        monkeypatch.setattr(run_module.time, "monotonic", lambda: 1007.0)
        assert run.train_seconds == 107.0
        assert run.meta()["train_seconds"] == 107.0


def test_evaluations_of_a_resumed_run_fall_on_the_same_steps_as_without_the_stop(tmp_path):
    (save,) = make_run(tmp_path, 640)
    with Run(tmp_path, CONFIG, save) as run:
        assert [n for n in range(768, 2000, 128) if run.should_evaluate(n)] == [1024, 1536]


def test_a_resumed_run_says_its_new_settings_and_keeps_its_start(tmp_path):
    (save,) = make_run(tmp_path, 100)
    started = (tmp_path / "run.json").read_text()
    with Run(tmp_path, make_tiny_config("training.env_steps=99999"), save):
        pass
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["training"]["env_steps"] == 99999
    assert (tmp_path / "run.json").read_text() == started


def test_a_run_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run: Not a directory"):
        Run(tmp_path / "file" / "run", CONFIG)


def test_a_row_that_the_disk_refuses_is_one_sentence_that_names_the_last_good_save(
    tmp_path, monkeypatch
):
    with Run(tmp_path, CONFIG) as run:
        save = save_at(run.checkpoints, 100)

        def refuse(env_steps, metrics):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(run._writer, "write", refuse)
        with pytest.raises(UserError, match="No space left on device; the last good") as refusal:
            run.log(200, 0)
    assert str(save.path) in str(refusal.value)


class Heard:
    """A watcher that remembers."""

    def __init__(self):
        self.episodes, self.rows, self.saves = [], [], 0

    def drove(self, episodes):
        self.episodes.append(episodes)

    def wrote(self, env_steps, row):
        self.rows.append((env_steps, row))

    def saved(self):
        self.saves += 1


def test_a_watcher_hears_the_rows_that_are_written_and_the_saves_and_no_others(tmp_path):
    heard = Heard()
    episodes = Episodes(128, np.array([1.0, 2.0]), np.array([30, 50]), np.array([True, True]))
    with Run(tmp_path, CONFIG, watchers=[heard]) as run:
        run.drove(episodes)
        run.log(128, 0)
        run.log(128, 0)
        run.saved()
    assert heard.episodes == [episodes]
    assert heard.saves == 1
    ((env_steps, row),) = heard.rows
    assert env_steps == 128
    assert (row["episode/count"], row["episode/length_env_steps"]) == (2, 40.0)


def test_a_resumed_run_counts_its_episodes_on(tmp_path):
    episodes = Episodes(128, np.array([1.0]), np.array([30]), np.array([True]))
    with Run(tmp_path, CONFIG) as run:
        run.drove(episodes)
        run.log(128, 0)
        save = save_at(run.checkpoints, 128)
        run.drove(episodes)
        run.log(256, 0)
    with Run(tmp_path, CONFIG, save) as run:
        run.drove(episodes)
        run.log(384, 0)
    counts = [row["episode/count"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert counts == [1, 2]


def test_a_run_notes_how_its_process_ended(tmp_path):
    with Run(tmp_path, CONFIG):
        assert process_state.read(tmp_path)["state"] == "running"
    assert process_state.read(tmp_path)["state"] == "ended"
    with pytest.raises(UserError), Run(tmp_path, CONFIG):
        raise UserError("no more cars")
    about = process_state.read(tmp_path)
    assert (about["state"], about["error"]) == ("failed", "UserError: no more cars")


def test_the_folder_is_given_back_after_the_last_file_is_closed(tmp_path, monkeypatch):
    states = []
    close = MetricsWriter.close

    def look_and_close(writer):
        states.append(process_state.read(tmp_path)["state"])
        close(writer)

    monkeypatch.setattr(MetricsWriter, "close", look_and_close)
    with Run(tmp_path, CONFIG):
        pass
    with pytest.raises(UserError), Run(tmp_path, CONFIG):
        raise UserError("no more cars")
    assert states == ["running", "running"]
    assert process_state.read(tmp_path)["state"] == "failed"


def test_a_disk_that_refuses_the_end_of_the_metrics_is_how_the_process_ended(tmp_path, monkeypatch):
    close = MetricsWriter.close

    def close_and_refuse(writer):
        close(writer)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsWriter, "close", close_and_refuse)
    with pytest.raises(UserError, match="No space left"), Run(tmp_path, CONFIG):
        pass
    about = process_state.read(tmp_path)
    assert about["state"] == "failed"
    assert "No space left on device" in about["error"]
