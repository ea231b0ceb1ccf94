"""The page of another environment than the race: pictures of its scene, and the newest policy."""

import json
import struct

import numpy as np
import pytest
import simplejpeg
from websockets.sync.client import connect

from rlcar.config import EnvironmentConfig, make_config
from rlcar.errors import ConfigError, UserError
from rlcar.registry import Registry
from serve.live.scene import LARGEST_PX, SceneDrive, encode
from serve.live.wire import PICTURE
from serve.policy.policy import load_policy
from tests.serve.live.live_page import paged
from tests.serve.served import publish
from tests.support.hand_made_versions import publish_constant
from tests.support.target_environment import ID, SIZE_PX
from tests.support.untrained_run import write_run
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A version that goes to the target, one that goes away from it, and one of a car."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    for action in (0.9, -0.9):
        publish_constant(folder, ID, action)
    publish(folder, alias=None)
    Registry(folder).promote(1)
    return folder


@pytest.fixture(scope="module")
def page(registry):
    with paged(registry) as page:
        yield page


def _messages(page, until):
    """Returns texts as JSON and frames as bytes, up to the first that `until` accepts."""
    found = []
    with connect(f"ws://{page.address}/live", max_size=None) as socket:
        while not found or not until(found[-1]):
            data = socket.recv(timeout=20)
            found.append(json.loads(data) if isinstance(data, str) else data)
    return found


def _is_picture(message):
    return isinstance(message, bytes) and message[0] == PICTURE


def test_the_page_shows_pictures_of_the_environment_of_its_champion(page):
    *texts, frame = _messages(page, _is_picture)
    (scene,) = [one for one in texts if isinstance(one, dict) and one["type"] == "scene"]
    assert scene == {"type": "scene", "environment": ID, "problem": None}
    steps, reward = struct.unpack_from("<2f", frame, 16)
    assert (steps, reward) == (0.0, 0.0)
    picture = simplejpeg.decode_jpeg(frame[24:])
    assert picture.shape == (*SIZE_PX, 3)
    column = int(picture[45].astype(int).sum(axis=1).argmax())
    assert 0 <= column < SIZE_PX[1] / 2  # the point begins left of the middle


def test_the_policy_acts_and_its_successes_are_counted(page):
    assert page.web.post("/start").json() == {"status": "started"}
    texts = _messages(page, lambda one: isinstance(one, dict) and one["type"] == "ending")
    assert texts[-1]["is_success"] is True
    assert texts[-1]["reason"] == "arrived"
    assert 0.9 < texts[-1]["reward"] < 2.1
    seen = [struct.unpack_from("<f", one, 16)[0] for one in texts if _is_picture(one)]
    assert len(set(seen)) > 3
    stats = page.web.get("/stats").json()
    assert stats["episodes"] == stats["successes"] >= 1
    assert page.web.post("/load_model?file=2").json()["policy"] == "version 2"
    page.live.reset()
    wait_until(lambda: page.live.drive.episodes > stats["successes"])
    assert page.web.get("/stats").json()["successes"] < page.live.drive.episodes
    assert page.web.post("/stop").json() == {"status": "stopped"}
    with page.web.stream("GET", "/video_feed") as video:
        part = next(video.iter_bytes())
    assert simplejpeg.decode_jpeg(part[part.index(b"\xff\xd8") :]).shape == (*SIZE_PX, 3)


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("/toggle_control", {}, "driving by hand"),
        ("/control", {"steering": 0.0, "throttle": 0.0}, "driving by hand"),
        ("/track", {}, "a choice of tracks"),
        ("/ghost", {"file": "1"}, "a ghost"),
        ("/try", {"observation": [0.5] * 3}, "trying the policy"),
    ],
)
def test_what_only_the_race_has_is_refused(page, path, body, what):
    answer = page.web.post(path, json=body)
    assert answer.status_code == 400
    wanted = f"this page shows {ID}, and {what} is there only in the race"
    assert answer.json() == {"error": wanted}


def test_a_policy_of_the_race_is_refused_here_and_a_policy_from_here_in_the_race(page, registry):
    answer = page.web.post("/load_model?file=3")
    assert answer.status_code == 400
    assert "version 3 observes 6 numbers and acts with 2" in answer.json()["error"]
    with paged(registry, race=make_config().race) as race:
        answer = race.web.post("/load_model?file=1")
        assert answer.json()["error"].startswith(f"version 1 acts in {ID}, and this page shows")


def test_the_page_follows_a_run_of_another_environment(tmp_path):
    config = make_config("td3", "test", environment=ID)
    run = write_run(tmp_path / "run", config)
    with paged(tmp_path / "models", run, environment=config.environment) as page:
        wait_until(lambda: page.live.drive.policy is not None)
        assert page.live.drive.policy.loaded.label == "run at 1,000 env steps"
        assert page.web.post("/save_model", json={}).json() == {"status": "saved", "version": 1}
    assert load_policy(Registry(tmp_path / "models"), 1).observation_size == 3


def test_an_environment_without_pictures_is_shown_by_its_figures(monkeypatch):
    monkeypatch.setattr("tests.support.target_environment.Target.render", lambda self: None)
    scene = SceneDrive(EnvironmentConfig(id=ID))
    assert scene.pack(0, 0.0) is None
    assert "drew an array of shape []" in str(scene.problem)
    with pytest.raises(UserError, match="cannot be drawn"):
        scene.picture()
    scene.is_running = True
    wait_until(lambda: scene.frame(1 / 60) is not None)
    assert scene.episodes == 1
    scene.close()


def test_an_environment_that_does_not_exist_is_one_sentence():
    with pytest.raises(ConfigError, match=r"environment.id = 'Nowhere-v0'"):
        SceneDrive(EnvironmentConfig(id="Nowhere-v0"))


def test_a_picture_is_never_larger_than_the_page_needs():
    shape = simplejpeg.decode_jpeg(encode(np.zeros((1300, 900, 3), np.uint8))).shape
    assert shape == (434, 300, 3)
    assert all(side <= most for side, most in zip(shape, LARGEST_PX, strict=False))
