"""Following the files of a training while it writes them."""

import json

import numpy as np

from rlcar.runs.metrics import MetricsWriter
from rlcar.storage import checkpoint
from serve.live.run_follower import RunFollower, thin_out


def test_new_rows_come_once_and_a_torn_one_when_it_is_whole(tmp_path):
    follower = RunFollower(tmp_path)
    assert follower.read() == (False, [])
    with MetricsWriter(tmp_path) as writer:
        writer.write(10, {"model/loss": 2.0, "something/else": 1.0})
        is_anew, rows = follower.read()
        assert is_anew
        assert rows[0]["model/loss"] == 2.0
        assert "something/else" not in rows[0]
        assert follower.read() == (False, [])
    line = json.dumps({"env_steps": 20, "model/loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line[:12])
        file.flush()
        assert follower.read() == (False, [])
        file.write(line[12:] + "\n")
    assert [row["env_steps"] for row in follower.read()[1]] == [20]
    assert follower.losses(100) == [2.0, 1.0]
    assert follower.last("model/loss") == 1.0


def test_a_resumed_run_rewrites_its_rows_and_they_begin_anew(tmp_path):
    follower = RunFollower(tmp_path)
    with MetricsWriter(tmp_path) as writer:
        for env_steps in (10, 20, 30):
            writer.write(env_steps, {"model/loss": 1.0})
    follower.read()
    with MetricsWriter(tmp_path, resume_env_steps=20) as writer:
        writer.write(25, {"model/loss": 0.5})
    is_anew, _ = follower.read()
    assert is_anew
    assert [row["env_steps"] for row in follower.rows] == [10, 20, 25]


def test_rows_that_are_no_numbers_are_left_out(tmp_path):
    lines = ['{"env_steps": "x"}', "[1]", "nonsense", '{"env_steps": 5, "model/loss": null}', ""]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    follower = RunFollower(tmp_path)
    assert [row["env_steps"] for row in follower.read()[1]] == [5]
    assert follower.losses(100) == []


def test_thinning_keeps_the_newest_rows_and_every_evaluation():
    rows = [{"env_steps": step} for step in range(1000)]
    rows[3]["evaluation/lap_rate"] = 0.5
    kept = thin_out(rows, 100)
    assert len(kept) <= 101
    assert kept[-50:] == rows[-50:]
    assert rows[3] in kept


def test_the_newest_save_is_the_one_of_most_env_steps(tmp_path):
    follower = RunFollower(tmp_path)
    assert follower.newest() is None
    for kind, env_steps in (("checkpoints", 256), ("best", 128), ("best", 512)):
        state = {"policy": {"w": np.zeros(1, np.float32)}}
        checkpoint.save(tmp_path / kind, env_steps, state, config_json="{}", meta={})
        assert follower.newest().env_steps == max(env_steps, 256)
