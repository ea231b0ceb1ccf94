"""Following metrics.jsonl while a training appends to it; reading all of it is in test_metrics."""

import json

import pytest

from rlcar.runs import metrics_file
from rlcar.runs.metrics import MetricsWriter
from rlcar.runs.metrics_file import MetricsFollower


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def append(path, *lines):
    with path.open("a") as file:
        file.write("".join(lines))


def env_steps(new):
    return [row["env_steps"] for row in new.rows]


def test_each_row_is_returned_once_and_an_incomplete_one_when_it_is_complete(path):
    follower = MetricsFollower(path)
    assert follower.read() is None
    append(path, '{"env_steps": 1}\n{"env_st')
    assert env_steps(follower.read()) == [1]
    append(path, 'eps": 2}\n')
    assert env_steps(follower.read()) == [2]
    assert env_steps(follower.read()) == []


def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path, path):
    with MetricsWriter(tmp_path) as writer:
        for count in (10, 20, 30):
            writer.write(count, {})
    follower = MetricsFollower(path)
    assert follower.read().is_restarted
    assert not follower.read().is_restarted
    MetricsWriter(tmp_path, resume_env_steps=20).close()
    new = follower.read()
    assert new.is_restarted
    assert env_steps(new) == [10, 20]


def test_of_a_long_file_only_the_end_is_read_at_first(path):
    append(path, *(json.dumps({"env_steps": count}) + "\n" for count in range(100)))
    follower = MetricsFollower(path, tail_bytes=60)
    assert env_steps(follower.read()) == [97, 98, 99]
    append(path, '{"env_steps": 100}\n')
    assert env_steps(follower.read()) == [100]


def test_lines_that_are_not_rows_are_skipped(path):
    append(path, '{"env_steps": "x"}\n[1]\nnonsense\n\n{"other": 1}\n{"env_steps": 5}\n')
    assert env_steps(MetricsFollower(path).read()) == [5]


def test_a_file_without_a_newline_is_read_in_bounded_parts(path, monkeypatch):
    monkeypatch.setattr(metrics_file, "_READ_BYTES", 10)
    append(path, "0" * 25)
    follower = MetricsFollower(path)
    for _ in range(5):
        assert follower.read().rows == []
    monkeypatch.undo()
    append(path, '\n{"env_steps": 1}\n')
    assert env_steps(follower.read()) == [1]
