"""An observer exports the states of runs, also of those whose process cannot answer."""

import json
import time

import pytest

from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.runs.collector import FORGET_AFTER_S, BackupCollector, RunsCollector
from rlcar.runs.monitor import Reading, RunsReader, RunStatus
from rlcar.runs.run import Run
from rlcar.system import heartbeat


def collected(collector):
    """Name with the values of its labels -> value."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_an_active_run_has_a_state_and_the_metrics_of_its_newest_rows(tmp_path):
    heartbeat.beat()  # the last one may be minutes ago, in an earlier test
    runs = RunsReader(tmp_path)
    with Run(tmp_path / "a", make_config(mode="test")) as run:
        run.trained(8, {"model/loss": 1.5, "learner/idle_share": 0.25})
        run.log(512, 8)
        run.log(640, 9)
        found = collected(RunsCollector(runs.readings, tmp_path))
    assert found["rlcar_run_state a running"] == 1
    assert found["rlcar_run_state a frozen"] == 0
    assert found["rlcar_env_steps a"] == 640
    assert found["rlcar_loss a model"] == 1.5
    assert found["rlcar_training_active a"] == 1
    assert found["rlcar_run_silent_seconds a"] < 60
    assert found["rlcar_disk_free_bytes"] > 0
    assert found["rlcar_runs_readable"] == 1


def test_a_run_that_has_ended_has_a_state_and_no_metrics(tmp_path):
    with Run(tmp_path / "a", make_config(mode="test")) as run:
        run.log(512, 8)
    found = collected(RunsCollector(RunsReader(tmp_path).readings, tmp_path))
    assert found["rlcar_run_state a stopped"] == 1
    assert found["rlcar_training_active a"] == 0
    assert "rlcar_env_steps a" not in found


def test_a_run_that_ended_long_ago_is_forgotten(tmp_path):
    states = [
        RunStatus("old", "dead", silent_s=FORGET_AFTER_S + 1),
        RunStatus("new", "dead", silent_s=FORGET_AFTER_S - 1),
        RunStatus("frozen", "frozen", silent_s=FORGET_AFTER_S + 1),
    ]
    found = collected(RunsCollector(lambda: [Reading(one, {}) for one in states], tmp_path))
    assert "rlcar_run_state old dead" not in found
    assert found["rlcar_run_state new dead"] == 1
    assert found["rlcar_run_state frozen frozen"] == 1


def test_when_a_run_broke_off_is_exported(tmp_path):
    states = [
        RunStatus("failed", "failed", silent_s=100.0),
        RunStatus("dead", "dead", silent_s=200.0),
        RunStatus("stopped", "stopped", silent_s=300.0),
        RunStatus("unknown", "failed"),
    ]
    found = collected(RunsCollector(lambda: [Reading(one, {}) for one in states], tmp_path))
    ended = {name: value for name, value in found.items() if name.startswith("rlcar_run_ended")}
    now_s = time.time()
    assert ended == {
        "rlcar_run_ended_timestamp_seconds failed": pytest.approx(now_s - 100, abs=10),
        "rlcar_run_ended_timestamp_seconds dead": pytest.approx(now_s - 200, abs=10),
    }


def test_a_folder_of_runs_that_disappears_is_a_metric(tmp_path):
    def read():
        raise UserError("not a folder of runs")

    found = collected(RunsCollector(read, tmp_path / "gone"))
    assert found == {"rlcar_runs_readable": 0}


def test_the_state_of_a_backup_is_exported(tmp_path):
    path = tmp_path / "backup-state.json"
    now_s = time.time()
    state = {"last_success_timestamp_seconds": now_s, "consecutive_failures": 2, "files": 7}
    path.write_text(json.dumps(state | {"last_error": "no space", "target": "s3://b"}))
    assert collected(BackupCollector(path)) == {
        "rlcar_backup_state_readable": 1,
        "rlcar_backup_last_success_timestamp_seconds": now_s,
        "rlcar_backup_consecutive_failures": 2,
        "rlcar_backup_files": 7,
    }


def test_a_first_backup_after_the_start_is_exported(tmp_path):
    path = tmp_path / "backup-state.json"
    collector = BackupCollector(path, is_optional=True)
    assert collected(collector) == {}
    path.write_text('{"files": 7}')
    assert collected(collector)["rlcar_backup_files"] == 7


@pytest.mark.parametrize("text", [None, "", "[1]"])
def test_a_backup_state_that_cannot_be_read_is_a_metric(text, tmp_path):
    path = tmp_path / "backup-state.json"
    if text is not None:
        path.write_text(text)
    assert collected(BackupCollector(path)) == {"rlcar_backup_state_readable": 0}


def test_numbers_of_a_backup_that_make_no_sense_are_left_out(tmp_path):
    path = tmp_path / "backup-state.json"
    path.write_text('{"files": NaN, "size_bytes": "x", "skipped_files": 1}')
    assert collected(BackupCollector(path)) == {
        "rlcar_backup_state_readable": 1,
        "rlcar_backup_skipped_files": 1,
    }
