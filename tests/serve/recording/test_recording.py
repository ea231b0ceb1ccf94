"""Sessions of real servers are recorded, whatever happens to the disk or to the server."""

import contextlib
import json
import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest

from rlcar.cli.serving import serve
from rlcar.datasets import Dataset
from rlcar.datasets.validation import validate
from rlcar.errors import UserError
from rlcar.system.process_usage import process_files
from serve.client import DriveClient
from tests.serve.served import program, serving
from tests.support.waiting import wait_until

SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]


# One for all drives: a validation refuses an episode that repeats another one.
RNG = np.random.default_rng(0)


def _drive(car, episodes=3, steps=20):
    """Drives episodes that end with a crash; each reward is the number of its step."""
    for _ in range(episodes):
        for step in range(steps + 1):
            ends = {"terminated": step == steps}
            human = {"executed": [0.1, 0.2]} if step == 5 else {}
            car.act(RNG.random(6), is_first=step == 0, reward=float(step), **ends, **human)


def _metrics(url):
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    rows = (line.rpartition(" ") for line in lines if line.startswith("rlcar_recording_"))
    return {name: float(value) for name, _, value in rows}


def _recorded(folder):
    (found,) = folder.glob("server-*")
    return found


def _url(server):
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    """Records half of the sessions; `car-0` is one of them, and `car-1` is not."""
    folder = tmp_path_factory.mktemp("disk") / "recorded"
    with serving(models, record=folder, record_share=0.5, record_flush_s=0.1) as server:
        server.folder = folder
        yield server


@pytest.mark.parametrize("websocket", [False, True])
def test_a_chosen_session_is_a_sound_data_set(server, websocket):
    before = _metrics(_url(server))
    for session in ("car-0", "car-1"):
        options = {"session": session, "websocket": websocket, "timeout_ms": 30_000}
        with DriveClient(_url(server), **options) as car:
            _drive(car)
    wanted = before.get("rlcar_recording_steps_total", 0.0) + 60
    wait_until(lambda: _metrics(_url(server))["rlcar_recording_steps_total"] == wanted)
    after = _metrics(_url(server))
    assert after["rlcar_recording_working"] == 1.0
    assert after["rlcar_recording_bytes"] > 1000
    data = Dataset.open(_recorded(server.folder))
    *_, episode = data.episodes_iter()
    assert episode.reward.tolist() == list(range(1, 21))
    assert episode.is_terminal
    assert episode.policy == "version-1"
    assert episode.source.tolist() == ["human" if step == 4 else "model" for step in range(20)]
    np.testing.assert_allclose(episode.action[4], [0.1, 0.2])
    assert list(validate(data.folder)) == []


def test_the_description_names_no_client(server):
    (source,) = Dataset.open(_recorded(server.folder)).description.sources
    assert source.kind == "server"
    assert set(source.about) == {"server", "alias", "share", "commit", "rlcar", "created"}
    text = (_recorded(server.folder) / "dataset.json").read_text()
    assert "127.0.0.1" not in text
    assert "car-0" not in text


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"reward": [1.0, 2.0]}, "reward has 2 entries for 1 observations"),
        ({"executed": {"action": [0.0, 2.0], "source": "human"}}, "<= 1.0"),
        ({"executed": {"action": [0.0, 1.0], "source": "cat"}}, "cat"),
        ({"terminated": True, "is_first": True}, "car 0 both begins and ends an episode"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(server, field, reason):
    body = {"observation": SEEN, "session": "car-0"} | field
    answer = httpx.post(f"{_url(server)}/v1/act", json=body)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("websocket", [False, True])
def test_a_reward_that_is_not_finite_is_refused(server, websocket):
    body = json.dumps({"observation": SEEN, "reward": 0}).replace("0}", "1e999}")
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{_url(server)}/v1/act", content=body, headers=headers)
    assert answer.status_code == 422
    assert "reward" in answer.json()["error"]
    with DriveClient(_url(server), websocket=websocket, timeout_ms=30_000) as car:
        reply = car.act(SEEN, reward=float("nan"))
    assert reply.error == "the reward of car 0 is nan: it must be finite"


def test_a_killed_server_leaves_a_sound_data_set(models, tmp_path):
    folder = tmp_path / "recorded"
    options = ("--direct", "--record", str(folder), "--set", "record_flush_s=0.1")
    with program(models, *options) as served:
        with DriveClient(served.url, session="car-0", timeout_ms=30_000) as car:
            _drive(car, episodes=2, steps=10)
            wait_until(lambda: _metrics(served.url)["rlcar_recording_steps_total"] == 20)
            _drive(car, episodes=1, steps=11)
        served.process.kill()
        served.process.wait(60)
    # What was written stays. The process that records also writes what it has received.
    wait_until(lambda: not _processes(folder))
    assert 20 <= _transitions(folder) <= 31
    assert list(validate(_recorded(folder))) == []


def test_an_orderly_end_writes_what_is_in_memory(models, tmp_path):
    for episodes in (2, 3):  # The second server goes on with the data set of the first one.
        with (
            serving(models, record=tmp_path / "recorded", record_flush_s=600.0) as server,
            DriveClient(_url(server), session="car-0", timeout_ms=30_000) as car,
        ):
            _drive(car, episodes, steps=10 + episodes)
        # The server waits some seconds only for the process, which a busy machine may exceed.
        wait_until(lambda: not _processes(tmp_path))
    assert _transitions(tmp_path / "recorded") == 2 * 12 + 3 * 13
    assert list(validate(_recorded(tmp_path / "recorded"))) == []


def _transitions(folder):
    return json.loads((_recorded(folder) / "dataset.json").read_text())["transitions"]


def test_a_process_that_was_killed_stops_no_server(models, tmp_path):
    with (
        serving(models, record=tmp_path / "recorded", record_flush_s=0.1) as server,
        DriveClient(_url(server), session="car-0", timeout_ms=30_000) as car,
    ):
        _drive(car, episodes=1)
        wait_until(lambda: _metrics(_url(server))["rlcar_recording_steps_total"] == 20)
        (process,) = _processes(tmp_path)
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: _metrics(_url(server))["rlcar_recording_working"] == 0.0)
        assert car.act(SEEN, is_first=True).source == "model"
    assert list(validate(_recorded(tmp_path / "recorded"))) == []


def _processes(folder):
    """Returns the ids of the processes that record below a folder."""
    found = []
    for path in process_files("cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"serve.recording.process" in words and str(folder).encode() in words:
                found.append(int(path.parent.name))
    return found


def test_a_folder_that_cannot_be_written_stops_no_server(models, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with serving(models, record=tmp_path / "file" / "recorded") as server:
        wait_until(lambda: _metrics(_url(server))["rlcar_recording_working"] == 0.0)
        with DriveClient(_url(server), timeout_ms=30_000) as car:
            assert car.act(SEEN, is_first=True).source == "model"
    (line,) = (one.message for one in caplog.records if "not recorded" in one.message)
    assert line.startswith("sessions are not recorded, and the server goes on: cannot write")
    assert str(tmp_path / "file" / "recorded") in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"record_share": 0.1}, "--record-share is for a recording: add --record FOLDER"),
        ({"record_limit_mb": 9.0}, "--record-limit-mb is for a recording: add --record FOLDER"),
        ({"record": Path(__file__)}, "is a file: name a folder"),
        ({"record": Path("new"), "record_share": 1.5}, "record_share=1.5: "),
        ({"record": Path("new"), "record_share": float("nan")}, "record_share=nan: "),
        ({"record": Path("new"), "record_limit_mb": -1.0}, "record_limit_mb=-1.0: "),
        ({"record": Path("new"), "set_": ["record_name=../x"]}, "record_name='../x': "),
        ({"set_": ["record=new"]}, "--set record=new: give it as --record"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_at_the_start(options, reason, tmp_path):
    with pytest.raises(UserError) as caught:
        serve(lane="realtime", registry=str(tmp_path / "none"), **options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
