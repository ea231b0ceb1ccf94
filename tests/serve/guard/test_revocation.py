"""The end of a login ends its open connections, also those that are idle or do not read."""

import itertools
import socket
import time

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serve.api.frames import pack_request, unpack_answer
from serve.api.schema import ObservationBatch
from serve.guard.access import ROUTES
from serve.guard.revocation import PERIOD_S
from serve.guard.tokens import REFRESH_S, TokenStore
from tests.serve.live.live_page import paged
from tests.serve.served import publish
from tests.support.waiting import wait_until

PATIENCE_S = 30.0
SEEN = ObservationBatch(np.full((1, 6), 0.5, np.float32), np.array([True]))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TokenStore(tmp_path_factory.mktemp("tokens") / "tokens.json")


@pytest.fixture(scope="module")
def page(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder)
    store.create("first", ["read"])
    with paged(folder, auth=True, tokens=store.path, requests_per_s=1e6) as page:
        yield page


@pytest.fixture
def clock(page):
    """The clock by which the server's logins end."""
    tokens = page.server.config.app._logins._tokens
    shift_s = [0.0]
    tokens._clock = lambda: time.time() + shift_s[0]
    yield shift_s
    tokens._clock = time.time


def _revoke(store, name, clock):
    store.revoke(name)


def _expire(store, name, clock):
    clock[0] = 1001.0


def _rotate(store, name, clock):
    store.rotate(name, overlap_s=0.0)


def _take_a_scope(store, name, clock):
    with store._changing() as file:
        next(token for token in file.tokens if token.name == name).scopes.remove("read")


ENDS = [_revoke, _expire, _rotate, _take_a_scope]


@pytest.fixture
def make(page, store, clock):
    """Makes a token that the server knows at once; returns its name and secret."""
    names = itertools.count()

    def made(*scopes, expires_s=1000.0):
        name = f"car-{next(names)}-{time.monotonic_ns()}"
        secret = store.create(name, scopes or ("act", "read"), expires_s)
        page.server.config.app._logins._tokens._looked_s = -1.0
        return name, secret

    return made


def _open(page, path, secret, **options):
    headers = {"authorization": f"Bearer {secret}"}
    address = f"ws://{page.address}{path}"
    return connect(address, additional_headers=headers, open_timeout=PATIENCE_S, **options)


def _close_code(line, talk=None):
    """Reads or sends until the server closes the connection; returns the close code."""
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline_s:
            line.recv(PATIENCE_S) if talk is None else talk(line)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    raise AssertionError("the connection is still open")


def _drives(line):
    line.send(pack_request(SEEN, 1))
    return unpack_answer(line.recv(PATIENCE_S))[1].source == "model"


def test_it_takes_less_than_two_seconds():
    assert REFRESH_S + PERIOD_S <= 1.0


def test_every_socket_is_monitored():
    assert all(access.is_endless for access in ROUTES.values() if access.is_socket)


@pytest.mark.parametrize("end", ENDS)
def test_an_idle_car_is_cut_off_and_others_drive_on(page, store, clock, make, end):
    name, secret = make()
    _, other = make("act", expires_s=None)
    with _open(page, "/v1/drive", secret) as line, _open(page, "/v1/drive", other) as honest:
        assert _drives(line)
        end(store, name, clock)
        assert _close_code(line) == 1008
        assert _drives(honest)
    if end is _take_a_scope:  # the remaining scopes still open a new connection
        with _open(page, "/v1/drive", secret) as line:
            assert _drives(line)
    else:
        with pytest.raises(InvalidStatus), _open(page, "/v1/drive", secret):
            pass


def test_a_car_that_drives_is_cut_off(page, store, clock, make):
    name, secret = make()
    with _open(page, "/v1/drive", secret) as line:
        assert _drives(line)
        store.revoke(name)
        assert _close_code(line, _drives) == 1008


@pytest.mark.parametrize("end", ENDS)
def test_a_viewer_who_only_listens_is_cut_off(page, store, clock, make, end):
    name, secret = make()
    with _open(page, "/live", secret) as line:
        line.recv(PATIENCE_S)
        assert len(page.live.viewers) == 1
        end(store, name, clock)
        assert _close_code(line) == 1008
    wait_until(lambda: len(page.live.viewers) == 0)


def test_a_viewer_who_lost_the_scope_drive_loses_control(page, store, make):
    name, secret = make("read", "drive")
    with _open(page, "/live", secret) as line:
        line.send('{"type": "take"}')
        wait_until(lambda: page.live.manual_control.driver is not None)
        with store._changing() as file:
            next(token for token in file.tokens if token.name == name).scopes = ["read"]
        assert _close_code(line) == 1008
    wait_until(lambda: page.live.manual_control.driver is None)


def test_a_cookies_end_ends_its_socket(page, store, clock, make):
    name, secret = make()
    cookie = store.make_cookie(store.check(secret), 600.0)
    headers = {"cookie": f"rlcar_session={cookie}"}
    origin = f"http://{page.address}"
    address = f"ws://{page.address}/live"
    with connect(address, additional_headers=headers, origin=origin) as line:
        line.recv(PATIENCE_S)
        clock[0] = 601.0
        assert _close_code(line) == 1008


@pytest.mark.parametrize("end", ENDS)
def test_a_video_ends(page, store, clock, make, end):
    name, secret = make()
    headers = {"authorization": f"Bearer {secret}"}
    address = f"http://{page.address}/video_feed"
    with httpx.stream("GET", address, headers=headers, timeout=PATIENCE_S) as stream:
        parts = stream.iter_raw()
        assert next(parts)
        end(store, name, clock)
        deadline_s = time.monotonic() + PATIENCE_S
        for _ in parts:
            assert time.monotonic() < deadline_s, "the video goes on"


@pytest.mark.parametrize("path", ["/live", "/video_feed"])
def test_who_reads_nothing_is_served_no_longer(page, store, clock, make, path):
    name, secret = make()
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    watch = page.server.config.app._monitored
    before = len(watch._open)
    with socket.create_connection(("127.0.0.1", page.server.port)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = f"GET {path} HTTP/1.1\r\nHost: {page.address}\r\nAuthorization: Bearer {secret}\r\n"
        line.sendall(f"{head}{upgrade if path == '/live' else ''}\r\n".encode())
        wait_until(lambda: len(watch._open) == before + 1)
        store.revoke(name)
        wait_until(lambda: len(watch._open) == before)
