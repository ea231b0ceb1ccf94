"""The session follows a run: its log, its saves and its world model."""

import json

import numpy as np
import pytest
from websockets.sync.client import connect

from rlcar.runs.metrics import MetricsWriter
from serve.live.wire import DREAM, DREAM_COLUMNS, LATENT
from tests.serve.live.live_page import paged, save_run
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "begun", 128)


@pytest.fixture(scope="module")
def page(run):
    with paged(run.parent / "models", run) as page:
        yield page


def _messages(page):
    with connect(f"ws://{page.address}/live", compression=None) as socket:
        for message in socket:
            yield json.loads(message) if isinstance(message, str) else message


def test_the_runs_own_policy_drives_and_its_rows_are_sent(page):
    messages = _messages(page)
    told = {}
    while not {"hello", "rows", "state", "stats"} <= told.keys():
        message = next(messages)
        if isinstance(message, dict):
            told[message["type"]] = message
    assert told["hello"]["run"] == "begun"
    assert told["state"]["policy"] == "begun at 128 env steps"
    assert told["state"]["follows"]
    assert told["rows"]["is_anew"]


def test_a_row_that_training_writes_is_sent_to_viewers(page, run):
    messages = _messages(page)
    next(messages)
    with MetricsWriter(run) as writer:
        writer.write(200, {"model/loss": 4.0, "actor/exploration_probability": 0.25})
    for message in messages:
        is_rows = isinstance(message, dict) and message["type"] == "rows" and message["rows"]
        if is_rows and message["rows"][-1]["env_steps"] == 200:
            break
    stats = page.web.get("/stats").json()
    assert stats["losses"][-1] == 4.0
    assert stats["exploration_rate"] == 0.25


def test_its_world_model_dreams_beside_the_drive(page):
    wait_until(lambda: page.live.drive.dreamer is not None)
    page.web.post("/start")
    seen = {}
    for message in _messages(page):
        if isinstance(message, bytes):
            seen[message[0]] = message
        if {DREAM, LATENT} <= seen.keys():
            break
    steps = np.frombuffer(seen[DREAM], "<f4", offset=16).reshape(-1, DREAM_COLUMNS)
    assert len(steps) == 30
    assert np.isfinite(steps[:, 3:8]).all()
    groups, classes = seen[LATENT][1:3]
    latent = np.frombuffer(seen[LATENT], np.uint8, offset=16).reshape(groups, classes)
    np.testing.assert_array_equal(latent.sum(axis=1), np.full(groups, 255))
    page.web.post("/stop")


def test_a_newer_save_replaces_the_policy_unless_one_was_loaded(page, run):
    version = page.web.post("/save_model").json()["version"]
    page.web.post(f"/load_model?file={version}")
    save_run(run, 256)
    wait_until(lambda: page.web.get("/list_models").json()["saves"][0]["env_steps"] == 256)
    assert page.live.state()["version"] == version
    assert not page.live.state()["follows"]
    page.web.post("/load_model?file=live")
    wait_until(lambda: page.live.state()["policy"] == "begun at 256 env steps")
    save_run(run, 384)
    wait_until(lambda: page.live.state()["policy"] == "begun at 384 env steps")


def test_a_frame_that_fails_stops_the_car_and_not_the_page(page, caplog):
    drive = page.live.drive
    frame = drive.frame
    drive.frame = None
    page.web.post("/start")
    wait_until(lambda: not page.web.get("/stats").json()["running"])
    drive.frame = frame
    assert "the live session stopped the car" in caplog.text
    page.web.post("/start")
    before = page.web.get("/stats").json()["steps"]
    wait_until(lambda: page.web.get("/stats").json()["steps"] > before)
    page.web.post("/stop")
