"""The journal of a pipeline: the order of its entries, its end, and what is no part of it."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from cluster.pipeline import journal
from cluster.pipeline.journal import Entry
from cluster.pipeline.recordings import Span
from rlcar.cli import app
from rlcar.errors import UserError


def done(stage, outcome=None, *, at_s=0.0, outputs=None):
    return Entry(stage, at_s, at_s + 1.0, {}, outputs or {}, f"{stage} is done", outcome)


def test_the_order_is_that_of_writing_whatever_the_clocks_say(tmp_path):
    run = journal.begin(tmp_path, {}, {})
    stages = ["collect", "validate", "train", "simulation gate"]
    for index, stage in enumerate(stages):
        outcome = "stopped at a gate" if stage == "simulation gate" else None
        run.write(done(stage, outcome, at_s=1000.0 - index, outputs={"newest": stage}))
    (read,) = journal.runs(tmp_path)
    assert [entry.stage for entry in read.entries()] == stages
    assert read.outcome == "stopped at a gate"
    assert read.values() == {"newest": "simulation gate"}


def test_more_than_ninety_nine_entries_keep_their_order(tmp_path):
    run = journal.begin(tmp_path, {}, {})
    for number in range(1, 4):
        run.write(done(f"s{number}"))
    place = run.folder / "journal"
    (place / "02-s2.json").rename(place / "99-s2.json")
    (place / "03-s3.json").rename(place / "100-s3.json")
    run.write(done("s4"))
    assert (place / "101-s4.json").exists()
    assert [entry.stage for entry in run.entries()] == ["s1", "s2", "s3", "s4"]


def test_a_run_that_has_ended_takes_no_entry_and_no_stage_is_done_twice(tmp_path):
    run = journal.begin(tmp_path, {}, {})
    run.write(done("train"))
    with pytest.raises(UserError, match="another process has finished the stage train"):
        run.write(done("train"))
    run.write(done("abandon", "abandoned"))
    with pytest.raises(UserError, match=r"has ended meanwhile \(abandoned\): .* simulation gate"):
        run.write(done("simulation gate"))
    assert [entry.stage for entry in run.entries()] == ["train", "abandon"]
    assert run.outcome == "abandoned"


def test_a_run_learns_again_from_the_newest_runs_that_were_neither_faulty_nor_abandoned(tmp_path):
    outcomes = ["promoted", "abandoned", "stopped at a gate", "invalid data", "rolled back"]
    for outcome in outcomes:
        journal.begin(tmp_path, {}, {}).write(done("x", outcome))
    found = journal.runs(tmp_path)
    assert [run.number for run in journal.learned_again(found, 9)] == [1, 3, 5]
    assert [run.number for run in journal.learned_again(found, 2)] == [3, 5]
    assert journal.learned_again(found, 0) == []


def test_folders_that_are_no_runs_are_left_out(tmp_path):
    first = journal.begin(tmp_path, {}, {})
    shutil.copytree(first.folder, tmp_path / "runs" / "0001.bak")
    (tmp_path / "runs" / "0002").mkdir()  # its process was killed before it wrote a plan
    (tmp_path / "runs" / "notes").write_text("mine")
    assert [run.number for run in journal.runs(tmp_path)] == [1]
    assert journal.begin(tmp_path, {}, {}).number == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", "[]"),
        ("plan.json", '{"began_s": 1.0}'),
        ("plan.json", '{"began_s": 1.0, "settings": {}, "spans": {"server-1": [0]}}'),
        ("plan.json", "{"),
        ("journal/01-collect.json", "[]"),
        ("journal/01-collect.json", '{"stage": "collect"}'),
        ("journal/01-collect.json", json.dumps(done("collect", "won")._asdict())),
        ("journal/01-collect.json", json.dumps(done("collect")._asdict() | {"outputs": 5})),
    ],
)
def test_a_foreign_file_is_one_sentence_in_every_command(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    run = journal.begin(tmp_path / "pipelines/nightly", {}, {"server-1": Span("", 0, 5)})
    run.write(done("collect"))
    (run.folder / name).write_text(content)
    (tmp_path / "nightly.yaml").write_text("collect: {recordings: sessions}")
    for option in ("--status", "--abandon", "--once"):
        result = CliRunner().invoke(app, ["pipeline", "nightly.yaml", option])
        assert isinstance(result.exception, UserError), option
        said = str(result.exception)
        assert said.startswith(f"pipelines/nightly/runs/0001/{name} cannot be read")
        assert "\n" not in said
