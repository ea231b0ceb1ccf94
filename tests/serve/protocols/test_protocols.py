"""The limits of the lane without HAProxy: no client blocks a connection or exhausts memory."""

import contextlib
import socket
import struct
import time

import pytest
import uvicorn

from serve.guard.limits import MAX_HEADERS
from serve.lanes.realtime import uvicorn_config
from serve.protocols.http import MAX_PIPELINED_REQUESTS, ConnectionLimits, bounded_http
from serve.protocols.websocket import MAX_FRAGMENTS
from serve.settings import make_settings
from tests.serve.served import publish, running, serving
from tests.support.waiting import wait_until

PATIENCE_S = 30.0
GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)
ACT = b'{"observation":[0.5,0.6,0.9,0.5,0.4,0.2]}'
PING, PONG, CLOSE, TEXT = 0x89, 0x8A, 0x88, 0x81
FRAGMENT, EMPTY_FRAGMENT = b"\x01\x80" + bytes(4), b"\x00\x80" + bytes(4)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    limits = {"headers_timeout_s": 0.5, "write_timeout_s": 0.5, "body_timeout_s": 0.5}
    with serving(folder, connections=32, in_flight=4, frames_per_s=100.0, **limits) as server:
        yield server


@pytest.fixture
def server_of_its_own(tmp_path):
    """Without a new server, connections of earlier floods would use its budget for some seconds."""
    publish(tmp_path, seed=1)
    limits = {"headers_timeout_s": 1.0, "write_timeout_s": 0.5}
    with serving(tmp_path, frames_per_s=100.0, **limits) as server:
        yield server


def _connected(server, receive_bytes=None):
    line = socket.socket()
    if receive_bytes is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    line.settimeout(PATIENCE_S)
    line.connect(("127.0.0.1", server.port))
    return line


def _read_until_closed(line):
    received = b""
    try:
        while chunk := line.recv(65_536):
            received += chunk
    except ConnectionError:
        pass
    return received


def _send_without_end(line, data):
    """Sends until the server closes the connection; returns how many bytes it accepted."""
    sent = 0
    try:
        while True:
            sent += line.send(data)
    except ConnectionError:
        return sent


def _frame(opcode, payload=b""):
    """A client's frame with the mask 0."""
    if len(payload) < 126:
        head = struct.pack("BB", opcode, 0x80 | len(payload))
    else:
        head = struct.pack(">BBH", opcode, 0x80 | 126, len(payload))
    return head + bytes(4) + payload


def _upgraded(server, path=b"/v1/drive"):
    line = _connected(server)
    line.sendall(UPGRADE % (path, b""))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    assert b" 101 " in head, head
    return line


def _read_frame(line):
    head = line.recv(2, socket.MSG_WAITALL)
    length = head[1]
    if length == 126:
        length = struct.unpack(">H", line.recv(2, socket.MSG_WAITALL))[0]
    return head[0], line.recv(length, socket.MSG_WAITALL) if length else b""


def _connections(server):
    return server.server_state.connections


BETWEEN_REQUESTS = {
    "an empty line after an answer": (GET, b"\r\n"),
    "half a request after an answer": (GET, b"GET /heal"),
    "half a header after an answer": (GET, b"GET / HTTP/1.1\r\nHo"),
    "a byte of a body after its refusal": (
        b"POST /v1/act HTTP/1.1\r\nHost: evil\r\nContent-Length: 20000\r\n\r\n",
        b"x",
    ),
    "a chunk of a body after its refusal": (
        b"POST /v1/act HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "nothing at all": (b"", b""),
    "a WebSocket with 200 headers": (UPGRADE % (b"/v1/drive", b"X-A: a\r\n" * 200), b""),
    "a WebSocket with a long path": (UPGRADE % (b"/v1/drive?session=" + b"a" * 9000, b""), b""),
    "a WebSocket with a long header": (
        UPGRADE % (b"/v1/drive", b"X-A: " + b"a" * 9000 + b"\r\n"),
        b"",
    ),
}


@pytest.mark.parametrize("name", BETWEEN_REQUESTS)
def test_every_state_of_a_connection_ends(server, name):
    first, then = BETWEEN_REQUESTS[name]
    with _connected(server) as line:
        line.sendall(first)
        if first:
            assert line.recv(1) == b"H"  # it is answered,
        if then:
            line.sendall(then)
        _read_until_closed(line)  # and it ends, although the client does not close it
    wait_until(lambda: not _connections(server))


ENDLESS = {
    "trailers": (
        b"POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a: b\r\n" * 1000,
    ),
    "one trailer": (
        b"POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\na: ",
        b"b" * 8000,
    ),
    "one chunk's extension": (
        b"POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1;",
        b"b" * 8000,
    ),
    "headers": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"a: b\r\n" * 1000),
    "one header": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\na: ", b"b" * 8000),
    "a path": (b"GET /", b"a" * 8000),
    "pipelined requests": (GET, b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_cut_off_early(server, name):
    first, then = ENDLESS[name]
    with _connected(server) as line:
        line.sendall(first)
        # The server accepts only what the kernel buffers on both sides.
        assert _send_without_end(line, then) < 20_000_000


def test_a_client_may_pipeline_some_requests(server):
    with _connected(server) as line:
        line.sendall(GET * MAX_PIPELINED_REQUESTS)
        received = b""
        while received.count(b" 200 OK") < MAX_PIPELINED_REQUESTS:
            received += line.recv(65_536)


def test_as_many_headers_as_allowed_are_taken(server):
    extra = b"X-A: a\r\n" * (MAX_HEADERS - 1)
    with _connected(server) as line:
        line.sendall(GET[:-2] + extra + b"\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 200")
        line.sendall(GET[:-2] + extra + b"X-A: a\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 431")


def test_connections_above_the_limit_are_asked_to_retry(server):
    lines = [_connected(server) for _ in range(40)]
    try:
        assert lines[-1].recv(4096).startswith(b"HTTP/1.1 429")
    finally:
        for line in lines:
            line.close()
    wait_until(lambda: not _connections(server))


def test_slow_readers_hold_no_slot_and_are_cut_off(server):
    """In-flight slots are for work: four readers of large answers would hold all of them."""
    asks = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * MAX_PIPELINED_REQUESTS
    lines = [_connected(server, receive_bytes=1024) for _ in range(8)]
    try:
        for line in lines:
            for _ in range(50):  # Until the kernel's buffers are full and uvicorn has to wait.
                try:
                    line.settimeout(0.05)
                    line.sendall(asks)
                except OSError:
                    break
        with _connected(server) as honest:
            honest.sendall(
                b"POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(ACT), ACT)
            )
            assert honest.recv(4096).startswith(b"HTTP/1.1 200")
        wait_until(lambda: not _connections(server))  # although the readers do not close them
    finally:
        for line in lines:
            line.close()


FLOODS = {
    "pings": (b"", _frame(PING, b"x")),
    "pongs": (b"", _frame(PONG, b"x")),
    "valid requests": (b"", _frame(TEXT, ACT)),
    "frames that are no requests": (b"", _frame(TEXT, b"{}")),
    "empty messages": (b"", _frame(TEXT)),
    "empty fragments": (FRAGMENT, EMPTY_FRAGMENT),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_delays_nobody(server, name):
    first, then = FLOODS[name]
    with _upgraded(server) as flood, _upgraded(server) as honest:
        flood.setblocking(False)
        flood.send(first)
        data = then * 10_000
        latencies_s = []
        for _ in range(20):
            # Until the server stops reading, which slows the client down, or closes the connection.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    flood.send(data)
            start_s = time.monotonic()
            honest.sendall(_frame(TEXT, ACT))
            opcode, answer = _read_frame(honest)
            latencies_s.append(time.monotonic() - start_s)
            assert opcode == TEXT
            assert b'"source":"model"' in answer
        # With the limits all of them together take 0.1 s, without them up to 10 s.
        assert sum(latencies_s) < 1.0


def test_a_message_has_a_limited_number_of_fragments(server):
    with _upgraded(server) as line:
        line.sendall(FRAGMENT + EMPTY_FRAGMENT * (MAX_FRAGMENTS + 10))
        opcode, payload = _read_frame(line)
        assert opcode == CLOSE
        assert struct.unpack(">H", payload[:2])[0] == 1009


def test_a_message_in_as_many_fragments_as_allowed_is_answered(server):
    fragments = [ACT[place : place + 1] for place in range(len(ACT))]
    frames = [_frame(0x01, fragments[0]), *(_frame(0x00, one) for one in fragments[1:-1])]
    with _upgraded(server) as line:
        line.sendall(b"".join(frames) + _frame(0x80, fragments[-1]))
        opcode, answer = _read_frame(line)
        assert b'"source":"model"' in answer


def test_a_burst_over_the_budget_is_answered_whole_and_in_order(server):
    """A slow answer is allowed; a lost or reordered one is not."""
    asks = [b'{"observation":[0.5,0.6,0.9,0.5,0.4,0.2],"step":%d}' % step for step in range(300)]
    with _upgraded(server, b"/v1/drive?session=burst") as line:
        line.sendall(b"".join(_frame(TEXT, ask) for ask in asks))
        answers = [_read_frame(line)[1] for _ in asks]
    for number, answer in enumerate(answers, start=1):
        assert b'"session_steps":%d' % number in answer


def test_a_large_message_in_one_frame_is_answered(server):
    ask = b'{"observations":[' + b",".join([b"[0.5,0.6,0.9,0.5,0.4,0.2]"] * 256) + b"]}"
    with _upgraded(server) as line:
        line.sendall(_frame(TEXT, ask))
        opcode, answer = _read_frame(line)
        assert answer.count(b"[") == 257


def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off():
    size = 12_000_000

    async def application(scope, receive, send):
        length = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"x" * size})

    limits = ConnectionLimits(make_settings(write_timeout_s=0.5), connections=8)
    config = uvicorn.Config(
        application, port=0, http=bounded_http(limits), lifespan="off", log_config=None
    )
    with running(config) as server, _connected(server, receive_bytes=65_536) as line:
        line.sendall(GET)
        received = 0
        for _ in range(20):  # Four times as long as the deadline.
            time.sleep(0.1)
            received += len(line.recv(300_000))
        while chunk := line.recv(300_000):
            received += len(chunk)
            if received > size:
                break
    assert received > size


def test_a_health_check_with_a_body_is_refused(server):
    for body in (b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"):
        with _connected(server) as line:
            line.sendall(GET[:-2] + body + b"\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_upgrade_with_a_body_is_refused(server):
    for body in (b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"):
        with _connected(server) as line:
            line.sendall(UPGRADE % (b"/v1/drive", body))
            assert line.recv(4096).startswith(b"HTTP/1.1 400")


def test_the_deadline_of_writes_holds_beside_connections_of_other_classes(tmp_path):
    """Like the Ray lane, where HTTP connections are of uvicorn's own class."""
    settings = make_settings(registry=str(tmp_path), port=0, write_timeout_s=0.5)
    config = uvicorn_config(settings)
    config.http = "httptools"
    with running(config) as server, _connected(server) as idle:
        idle.sendall(GET)
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        with _connected(server, receive_bytes=1024) as line:
            line.sendall(UPGRADE % (b"/v1/drive", b""))
            assert b" 101 " in line.recv(4096)
            assert _send_without_end(line, _frame(PING, b"x" * 125) * 100) > 0


def test_a_reader_of_pongs_that_stops_reading_is_cut_off(server_of_its_own):
    with _connected(server_of_its_own, receive_bytes=1024) as line:
        line.sendall(UPGRADE % (b"/v1/drive", b""))
        assert b" 101 " in line.recv(4096)
        assert _send_without_end(line, _frame(PING, b"x" * 125) * 100) > 0
    wait_until(lambda: not _connections(server_of_its_own))


def _broken(*arguments):
    raise RuntimeError("a mistake in this connection alone")


def test_a_connection_that_fails_does_not_stop_the_deadlines_of_others(server_of_its_own):
    with _connected(server_of_its_own) as first, _connected(server_of_its_own) as other:
        wait_until(lambda: len(_connections(server_of_its_own)) == 2)
        port = first.getsockname()[1]
        broken = next(line for line in _connections(server_of_its_own) if line.client[1] == port)
        broken.check_deadlines = _broken
        assert _read_until_closed(first) == b""
        assert _read_until_closed(other).startswith(b"HTTP/1.1 408")
    wait_until(lambda: not _connections(server_of_its_own))


def test_a_connection_that_fails_does_not_stop_the_shared_turns_of_others(server_of_its_own):
    with _upgraded(server_of_its_own) as first, _upgraded(server_of_its_own) as other:
        wait_until(lambda: len(_connections(server_of_its_own)) == 2)
        port = first.getsockname()[1]
        broken = next(line for line in _connections(server_of_its_own) if line.client[1] == port)
        broken.parse_slice = _broken
        with contextlib.suppress(ConnectionError):
            first.sendall(_frame(PONG, b"x") * 10_000)
        assert _read_until_closed(first) == b""
        other.sendall(_frame(PONG, b"x") * 1_000 + _frame(TEXT, ACT))
        opcode, answer = _read_frame(other)
        assert b'"source":"model"' in answer
    wait_until(lambda: not _connections(server_of_its_own))
