"""Invalid HTTP on a raw socket gets a 4xx answer or a closed connection, never a 5xx or a hang."""

import json
import re
import socket
import time

import pytest

from tests.serve.served import program, publish, serving

SEEN = b"[0.5,0.6,0.9,0.5,0.4,0.2]"
GOOD = b'{"observation":' + SEEN + b"}"
JSON = b"Content-Type: application/json\r\n"
HOST = b"Host: 127.0.0.1\r\n"
PATIENCE_S = 30.0


def _post(body=GOOD, headers=b"", path=b"/v1/act", kind=JSON, host=HOST, length=None):
    told = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"POST " + path + b" HTTP/1.1\r\n" + host + kind + told + headers + b"\r\n" + body


def _get(path, headers=b"", host=HOST, version=b"HTTP/1.1", method=b"GET"):
    return method + b" " + path + b" " + version + b"\r\n" + host + headers + b"\r\n"


def _chunked(*chunks):
    head = b"POST /v1/act HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks)


HANGS_UP = 0  # the connection may end without an answer
# name -> (bytes, the allowed statuses)
CASES = {
    "not HTTP": (b"hello\r\n\r\n", {400}),
    "binary noise": (bytes(range(256)) * 4, {400}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, {400}),
    "an SSH client": (b"SSH-2.0-OpenSSH_9.6\r\n", {400}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "HTTP/9.9": (_get(b"/health/live", version=b"HTTP/9.9"), {400, 505}),
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", {400}),
    "HTTP/1.0 without Host": (_get(b"/health/live", version=b"HTTP/1.0", host=b""), {400}),
    "no Host": (_get(b"/health/live", host=b""), {400}),
    "two Hosts": (_get(b"/health/live", host=HOST + b"Host: evil\r\n"), {400}),
    "a foreign Host": (_get(b"/health/live", host=b"Host: evil.example\r\n"), {421}),
    "an empty Host": (_get(b"/health/live", host=b"Host:\r\n"), {400}),
    "a Host with a path": (_get(b"/health/live", host=b"Host: 127.0.0.1/x@evil\r\n"), {400, 421}),
    "a broken IPv6 Host": (_get(b"/health/live", host=b"Host: [::1\r\n"), {400}),
    "a bad method": (_get(b"/v1/act", method=b"FOO"), {400, 405}),
    "a method with a space": (_get(b"/v1/act", method=b"GE T"), {400}),
    "TRACE": (_get(b"/health/live", method=b"TRACE"), {400, 405}),
    "CONNECT": (_get(b"127.0.0.1:80", method=b"CONNECT"), {400, 404, 405}),
    "DELETE a model": (_get(b"/v1/models/1", method=b"DELETE"), {405}),
    "PUT to act": (_get(b"/v1/act", method=b"PUT"), {405}),
    "GET act": (_get(b"/v1/act"), {405}),
    "an absolute URL": (_get(b"http://evil.example/v1/models"), {200, 400, 404}),
    "no path": (_get(b""), {400}),
    "an asterisk": (_get(b"*", method=b"OPTIONS"), {400, 404, 405}),
    "dots up": (_get(b"/../../etc/passwd"), {404}),
    "coded dots up": (_get(b"/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), {404}),
    "a null in the path": (_get(b"/v1/models/%00"), {400}),
    "a raw null in the path": (_get(b"/v1/models/\x00"), {400}),
    "bad percent coding": (_get(b"/v1/models/%zz"), {400, 404}),
    "UTF-8 in the path": (_get("/v1/models/ü".encode()), {400, 404}),
    "overlong UTF-8": (_get(b"/v1/models/%c0%af"), {404}),
    "a model of many digits": (_get(b"/v1/models/" + b"9" * 5000), {404}),
    "a negative model": (_get(b"/v1/models/-1"), {404}),
    "a path of 100 kB": (_get(b"/" + b"a" * 100_000), {400, 414, 431}),
    "a header of 100 kB": (_get(b"/health/live", b"X: " + b"a" * 100_000 + b"\r\n"), {400, 431}),
    "2,000 headers": (_get(b"/health/live", b"X-A: aaaaaaaa\r\n" * 2000), {400, 431}),
    "a header without a colon": (_get(b"/health/live", b"nonsense\r\n"), {400}),
    "a header with a null": (_get(b"/health/live", b"X: a\x00b\r\n"), {400}),
    "a folded header": (_get(b"/health/live", b"X: a\r\n b\r\n"), {200, 400}),
    "a space before the colon": (_get(b"/health/live", b"X : a\r\n"), {400}),
    "a header without a name": (_get(b"/health/live", b": a\r\n"), {400}),
    "lone line feeds": (b"GET /health/live HTTP/1.1\nHost: 127.0.0.1\n\n", {200, 400}),
    "a negative length": (_post(length=-5), {400}),
    "a length in words": (_post(headers=b"", length=0).replace(b": 0", b": abc"), {400}),
    "a length of 30 digits": (_post(length=10**30), {400, 413}),
    "a plus in the length": (_post(length=0).replace(b": 0", b": +5"), {400}),
    "two lengths": (_post(headers=b"Content-Length: 5\r\n"), {400}),
    "length and chunks": (_post(headers=b"Transfer-Encoding: chunked\r\n"), {400}),
    "an unknown coding": (_post(headers=b"Transfer-Encoding: gzip\r\n", length=3), {400}),
    "a chunk of no size": (_chunked(b"zz\r\nabc\r\n0\r\n\r\n"), {400}),
    "a chunk of huge size": (_chunked(b"fffffffffffffffff\r\nabc\r\n"), {400}),
    "a negative chunk": (_chunked(b"-5\r\nabc\r\n"), {400}),
    "chunks past the limit": (_chunked(*[b"2000\r\n" + b"x" * 8192 + b"\r\n"] * 40), {413}),
    "a body past the limit": (_post(b"x" * 300_000), {413}),
    "a claim past the limit": (_post(b"", length=10**9), {413}),
    "a big body elsewhere": (_post(b"x" * 5000, path=b"/v1/models"), {413}),
    "an empty body": (_post(b""), {400}),
    "no content type": (_post(kind=b""), {415}),
    "form data": (_post(kind=b"Content-Type: application/x-www-form-urlencoded\r\n"), {415}),
    "plain text": (_post(kind=b"Content-Type: text/plain\r\n"), {415}),
    "a compressed body": (_post(b"\x1f\x8b\x08", b"Content-Encoding: gzip\r\n"), {415}),
    "half a JSON": (_post(GOOD[:-3]), {400}),
    "two JSONs": (_post(GOOD + GOOD), {400}),
    "JSON of 50,000 brackets": (_post(b"[" * 50_000), {400, 422}),
    "a list": (_post(SEEN), {422}),
    "null": (_post(b"null"), {422}),
    "NaN": (_post(GOOD.replace(b"0.5", b"NaN")), {400}),
    "infinity": (_post(GOOD.replace(b"0.5", b"1e999")), {400, 422}),
    "1e300": (_post(GOOD.replace(b"0.5", b"1e300")), {422}),
    "a string for a number": (_post(GOOD.replace(b"0.5", b'"0.5"')), {422}),
    "true for a number": (_post(GOOD.replace(b"0.5", b"true")), {422}),
    "a number of 10,000 digits": (_post(GOOD.replace(b"0.5", b"9" * 10_000)), {400, 422}),
    "an unknown field": (_post(GOOD[:-1] + b',"x":1}'), {422}),
    "invalid UTF-8": (_post(GOOD[:-1] + b',"session":"\xff\xfe"}'), {400, 422}),
    "a lone surrogate": (_post(GOOD[:-1] + b',"session":"\\ud800"}'), {400, 422}),
    "a byte-order mark": (_post(b"\xef\xbb\xbf" + GOOD), {400}),
    "UTF-16": (_post(GOOD.decode().encode("utf-16")), {400}),
    "300,000 cars": (_post(b'{"observations":[' + b"[]," * 60_000 + b"[]]}"), {422}),
    "an upgrade to nothing": (
        _get(b"/v1/drive", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        {400, 404, 426},
    ),
    "a WebSocket without a key": (
        _get(b"/v1/drive", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        {400, 426},
    ),
    "a socket's route over HTTP": (_get(b"/v1/drive"), {404, 405, 426}),
    "a foreign origin": (_post(headers=b"Origin: http://evil.example\r\n"), {403}),
    "an expectation": (_post(headers=b"Expect: 100-continue\r\n"), {100, 200}),
    "an unknown expectation": (_post(headers=b"Expect: 200-maybe\r\n"), {200, 417}),
    "a silly range": (_get(b"/openapi.json", b"Range: bytes=9-1\r\n"), {200, 416}),
    "a broken cookie": (_get(b"/health/live", b"Cookie: ;;=\x80;\r\n"), {200, 400}),
}


LIMITS = {
    "headers_timeout_s": 0.4,
    "body_timeout_s": 0.4,
    "connections": 64,
    "connections_per_address": 64,
    "deadline_ms": 1000,
}


@pytest.fixture(scope="module", params=["direct", "behind HAProxy"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    if request.param == "direct":
        with serving(folder, **LIMITS) as server:
            yield server
        assert server.config.app.slots.taken == 0
    else:
        options = [f"--set={name}={value}" for name, value in LIMITS.items()]
        with program(folder, *options) as server:
            yield server


def _send(server, data):
    """Sends, shuts down writing, and returns the answer until the server closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        try:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            while chunk := line.recv(65_536):
                received += chunk
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise  # the server may stop reading or close, but must not let the client wait
    return received


def _statuses(received):
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


def _is_alive(server):
    answer = _send(server, _post())
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    return _statuses(answer) == [200] and body["source"] == "model"


def test_there_are_enough_cases():
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_bad_http_is_answered_and_harms_nobody(server, name):
    data, right = CASES[name]
    received = _send(server, data)
    statuses = _statuses(received)
    assert all(status < 500 for status in statuses)
    assert not statuses or statuses[0] in right, received[:300]
    assert b"Traceback" not in received
    assert _is_alive(server)


def test_a_smuggled_second_request_is_not_run(server):
    """Length and chunks disagree about where the first request ends."""
    inner = b"0\r\n\r\n" + _get(b"/v1/models")
    data = _post(inner, headers=b"Transfer-Encoding: chunked\r\n")
    assert 200 not in _statuses(_send(server, data))


def test_pipelined_requests_are_answered_in_their_order(server):
    bodies = [b'{"observation":' + SEEN + b',"session":"p","step":%d}' % step for step in range(9)]
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        line.sendall(b"".join(_post(body) for body in bodies))
        while received.count(b"HTTP/1.1 200") < 9 or not received.endswith(b"}"):
            received += line.recv(65_536)
    steps = re.findall(rb'"session_steps":(\d+)', received)
    assert [int(step) for step in steps] == list(range(1, 10))


def _drip(line, data):
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        line.sendall(data)
        time.sleep(0.05)


def test_headers_that_never_end_are_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        line.sendall(b"GET /health/live HTTP/1.1\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _drip(line, b"X: a\r\n")
    assert _is_alive(server)


def test_a_connection_that_says_nothing_is_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        assert _statuses(line.recv(4096)) == [408]


def test_a_body_that_drips_is_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        line.sendall(_post(b"", length=100))
        assert _statuses(line.recv(4096)) == [408]


def test_clients_that_hang_up_in_the_middle_harm_nobody(server):
    for cut in range(1, len(_post()), 17):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
            line.sendall(_post()[:cut])
    assert _is_alive(server)
