"""What a run collects, and when it ends because too little of it is left."""

import shutil
from pathlib import Path

import pytest

from cluster.pipeline import journal
from cluster.pipeline.context import Context
from cluster.pipeline.learning import collect
from cluster.pipeline.recordings import find_new
from cluster.pipeline.settings import parse_settings
from rlcar.registry import Registry
from tests.support.recordings import record


@pytest.fixture
def context(tmp_path):
    """A run that begins with 30 episodes of each of two servers, of which it needs 40."""
    sessions = tmp_path / "sessions"
    for name in ("server-1", "server-2"):
        record(sessions / name, episodes=30)
    tree = {"collect": {"recordings": str(sessions), "minimumEpisodes": 40}}
    settings = parse_settings(tree | {"folder": str(tmp_path / "pipeline")}, "nightly")
    spans = find_new(sessions, {}).spans
    run = journal.begin(tmp_path / "pipeline", settings.tree(), spans)
    return Context(settings, Registry(tmp_path / "models"), run, lambda text: None)


def test_a_run_ends_if_too_little_is_left_of_its_episodes(context):
    assert collect(context, {}).outcome is None
    sessions = Path(context.settings.collect.recordings)
    shutil.rmtree(sessions / "server-2")
    done = collect(context, {})
    assert (done.outcome, done.outputs["episodes"]) == ("invalid data", 30)
    missing = f"the recording server-2 is not in {sessions} any more"
    assert done.outputs["left_out"] == [missing]
    assert done.sentence.startswith("fewer than 40 episodes are left: 30 episodes, ")
    assert done.sentence.endswith(f"; left out: {missing}")


def test_a_run_ends_if_nothing_of_its_episodes_can_be_read(context):
    for part in Path(context.settings.collect.recordings).glob("*/part-*.parquet"):
        part.unlink()
    done = collect(context, {})
    assert done.outcome == "invalid data"
    assert "no new episode in" in done.sentence
