"""The stream of the page, as the page and other clients use it."""

import asyncio
import contextlib
import json
import struct

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from benchmarks.load import upgrade
from serve.live.viewers import MAX_VIEWERS_PER_OWNER
from serve.live.wire import TICK
from tests.serve.live.live_page import paged
from tests.serve.served import publish
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "models"
    publish(folder, 1)
    with paged(folder) as page:
        yield page


@pytest.fixture(autouse=True)
def _standing(page):
    yield
    page.live.drive.is_running = page.live.drive.is_manual = False


@contextlib.contextmanager
def _viewer(page, **options):
    with connect(f"ws://{page.address}/live", compression=None, **options) as socket:
        yield Viewer(socket)


def test_a_flood_of_takes_and_leaves_disconnects_nobody(page):
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(_viewer(page, close_timeout=0.1)) for _ in range(10)]
        flood = stack.enter_context(_viewer(page, close_timeout=0.1))
        for _ in range(300):
            flood.say(type="take")
            flood.say(type="leave")
        for viewer in viewers:
            viewer.sentence("state", lambda said: said["driver"] == flood.hello["id"])
            viewer.sentence("stats")
    wait_until(lambda: page.live.manual_control.driver is None)


def test_viewers_that_come_at_once_do_not_exceed_the_limit(page):
    async def open_at_once(number):
        async def status():
            reader, writer = await asyncio.open_connection("127.0.0.1", page.server.port)
            writer.write(upgrade(f"http://{page.address}", "/live"))
            head = await reader.readuntil(b"\r\n\r\n")
            return int(head.split()[1]), writer

        answers = await asyncio.gather(*(status() for _ in range(number)))
        for _, writer in answers:
            writer.transport.abort()
        return [answer for answer, _ in answers]

    statuses = asyncio.run(open_at_once(2 * MAX_VIEWERS_PER_OWNER))
    assert statuses.count(101) == MAX_VIEWERS_PER_OWNER
    assert statuses.count(403) == MAX_VIEWERS_PER_OWNER
    wait_until(lambda: not len(page.live.viewers))


class Viewer:
    """Reads the stream until the expected message arrives."""

    def __init__(self, socket):
        self.socket = socket
        self.hello = self.sentence("hello")

    def sentence(self, kind, is_it=lambda said: True):
        while True:
            message = self.socket.recv(timeout=20)
            if isinstance(message, str):
                said = json.loads(message)
                if said["type"] == kind and is_it(said):
                    return said

    def tick(self, is_it=lambda flags, numbers: True):
        while True:
            message = self.socket.recv(timeout=20)
            if isinstance(message, bytes) and message[0] == TICK:
                numbers = struct.unpack_from(f"<{(len(message) - 16) // 4}f", message, 16)
                if is_it(message[1], numbers):
                    return numbers

    def say(self, **message):
        self.socket.send(json.dumps(message))

    @property
    def headers(self):
        return {"X-Rlcar-Viewer": self.hello["key"]}


def test_a_viewer_receives_the_road_and_the_driver(page):
    with _viewer(page) as viewer:
        track = viewer.sentence("track")
        assert len(track["inner_px"]) == len(track["outer_px"]) == 100
        state = viewer.sentence("state")
        assert (state["policy"], state["driver"]) == ("version 1", None)
        assert viewer.tick()[:2] == pytest.approx(page.live.drive.car.pose[:2])


def test_every_viewer_sees_the_same_car_move(page):
    with _viewer(page) as ann, _viewer(page) as bob:
        page.web.post("/start", headers=ann.headers)
        for viewer in (ann, bob):
            viewer.tick(lambda flags, numbers: numbers[3] > 0.5)  # its speed


def test_a_spectators_pedals_are_connected_to_nothing(page):
    with _viewer(page) as ann, _viewer(page) as bob:
        ann.say(type="take")
        ann.sentence("state", lambda said: said["driver"] == ann.hello["id"])
        bob.sentence("state", lambda said: said["driver"] == ann.hello["id"])
        bob.say(type="take")
        assert "somebody else drives" in bob.sentence("error")["error"]
        refused = page.web.post("/start", headers=bob.headers)
        assert refused.status_code == 409
        assert "somebody else drives" in refused.json()["error"]
        assert page.web.post("/start").status_code == 409
        page.web.post("/start", headers=ann.headers)
        page.web.post("/toggle_control", headers=ann.headers)
        bob.say(type="control", steering=0.5, throttle=1.0)
        ann.say(type="control", steering=-0.25, throttle=1.0)
        assert ann.tick(lambda flags, numbers: numbers[6] == 1.0)[5] == -0.25
        ann.say(type="leave")
        bob.sentence("state", lambda said: said["driver"] is None)
        bob.say(type="take")
        bob.sentence("state", lambda said: said["driver"] == bob.hello["id"])


def test_control_is_released_when_its_page_is_closed(page):
    with _viewer(page) as bob:
        with _viewer(page) as ann:
            ann.say(type="take")
            bob.sentence("state", lambda said: said["driver"] == ann.hello["id"])
        bob.sentence("state", lambda said: said["driver"] is None)


def test_hands_that_fall_silent_brake_the_car(page):
    with _viewer(page) as ann:
        page.web.post("/start", headers=ann.headers)
        page.web.post("/toggle_control", headers=ann.headers)
        ann.say(type="control", steering=0.0, throttle=1.0)
        ann.tick(lambda flags, numbers: numbers[6] == 1.0)
        ann.tick(lambda flags, numbers: numbers[5:7] == (0.0, -1.0))


def test_the_end_of_an_episode_and_a_published_version_are_sent(page):
    with _viewer(page) as ann:
        page.web.post("/start", headers=ann.headers)
        page.web.post("/toggle_control", headers=ann.headers)
        said = {"type": ""}
        while said["type"] != "episode":
            ann.say(type="control", steering=0.0, throttle=1.0)  # straight off the road
            message = ann.socket.recv(timeout=20)
            said = json.loads(message) if isinstance(message, str) else said
        assert said["driver"] == "by hand"
        version = page.web.post("/save_model", headers=ann.headers).json()["version"]
        assert ann.sentence("versions")["newest"] == version


BAD_MESSAGES = [
    "",
    "x",
    "[]",
    "{}",
    '{"type": "start"}',
    '{"type": "control"}',
    '{"type": "control", "steering": NaN, "throttle": 0}',
    '{"type": "control", "steering": 1e400, "throttle": 0}',
    '{"type": "control", "steering": 1.5, "throttle": 0}',
    '{"type": "control", "steering": true, "throttle": 0}',
    '{"type": "control", "steering": "1", "throttle": 0}',
    '{"type": "control", "steering": 0, "throttle": 0, "more": 1}',
    '{"type": "take", "key": "x"}',
    b"\xff\xff",
    "[" * 1000,
    "x" * 1100,
]


@pytest.mark.parametrize("message", BAD_MESSAGES)
def test_a_bad_message_is_answered_in_one_sentence_and_the_stream_goes_on(page, message):
    with _viewer(page) as viewer:
        viewer.socket.send(message)
        assert viewer.sentence("error")["error"].startswith("invalid message")
        viewer.tick()


def test_a_viewer_that_sends_only_bad_messages_is_disconnected(page):
    with _viewer(page) as viewer:
        for _ in range(21):
            viewer.socket.send("x")
        with pytest.raises(ConnectionClosed) as closed:
            viewer.tick(lambda flags, numbers: False)
    assert closed.value.rcvd.code == 1008


def test_another_sites_page_gets_no_stream(page):
    address = f"ws://{page.address}/live"
    with pytest.raises(InvalidStatus), connect(address, origin="https://evil.example"):
        pass
