"""Alerts of a server are read in order, and whatever else answers is one sentence."""

import base64
import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rlcar.errors import UserError
from rlcar.runs import prometheus_alerts
from rlcar.runs.prometheus_alerts import AlertsReader
from tests.support.kubernetes.certificates import Authority


class Server(http.server.ThreadingHTTPServer):
    """Answers everything with one status and body, and keeps the headers that it was sent."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body, self.headers = status, body, headers
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str | None]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # of an answer that is given up
            self.wfile.write(self.server.body)

    def log_message(self, *parts: object) -> None:
        pass


@contextlib.contextmanager
def answering(body: bytes | str, status: int = 200, **headers: str) -> Iterator[Server]:
    body = body.encode() if isinstance(body, str) else body
    with Server(status, body, headers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def alert(name: str, state: str, severity: str, **annotations: str) -> dict:
    labels = {"alertname": name, "severity": severity, "run": "a"}
    when = "2026-11-30T02:00:00.5Z"
    return {
        "labels": labels,
        "annotations": annotations,
        "state": state,
        "activeAt": when,
        "value": "1e+00",
    }


def test_firing_and_severe_alerts_come_first():
    alerts = [
        alert("Waits", "pending", "critical"),
        alert("Warns", "firing", "warning"),
        alert("Urgent", "firing", "critical", summary="Bad.", runbook_url="docs/runbooks/U.md"),
        alert("Own", "firing", "page"),
    ]
    text = json.dumps({"status": "success", "data": {"alerts": alerts}})
    with answering(text) as server:
        found = AlertsReader(f"{server.url}/", "secret").alerts()
        assert server.asked == [("/api/v1/alerts", "Bearer secret")]
    assert [one.name for one in found] == ["Urgent", "Warns", "Own", "Waits"]
    assert found[0].summary == "Bad."
    assert found[0].runbook == "docs/runbooks/U.md"
    assert found[0].labels == {"run": "a"}
    assert found[0].since_unix_s == 1796004000.5
    assert found[0].value == 1.0


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, r"asks for a token or does not accept .*RLCAR_PROMETHEUS_TOKEN"),
        (403, r"does not allow this token"),
        (404, r"does not answer as Prometheus does \(404"),
        (503, r"is not ready \(503\): try again soon"),
    ],
)
def test_a_refusal_is_one_sentence(status, sentence):
    with answering("{}", status) as server, pytest.raises(UserError, match=sentence):
        AlertsReader(server.url).alerts()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"status": "error", "error": "x"}',
        b'{"status": "success", "data": {"alerts": [1]}}',
        b'{"status": "success", "data": {"alerts": [{"labels": {}, "state": "firing"}]}}',
        b'{"status": "success", "data": {"alerts": [{"labels": null, "state": "firing"}]}}',
        pytest.param(b"[" * 200_000, id="deep"),
    ],
)
def test_an_answer_that_is_no_list_of_alerts_is_one_sentence(body):
    with answering(body) as server, pytest.raises(UserError, match="not a list of alerts"):
        AlertsReader(server.url).alerts()


def test_a_token_is_not_handed_to_another_host():
    with answering("{}") as other:
        redirection = answering("", 302, Location=f"{other.url}/api/v1/alerts")
        with redirection as server, pytest.raises(UserError, match=r"redirects elsewhere \(302\)"):
            AlertsReader(server.url, "secret").alerts()
        assert other.asked == []


def test_a_server_that_is_not_there_is_one_sentence():
    with answering("") as server:
        url = server.url
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\)"):
        AlertsReader(url).alerts()


def test_values_that_are_no_numbers_are_left_out():
    strange = alert("A", "firing", "info") | {"value": "NaN", "activeAt": "never"}
    with answering(json.dumps({"status": "success", "data": {"alerts": [strange]}})) as server:
        (found,) = AlertsReader(server.url).alerts()
    assert found.value is None
    assert found.since_unix_s is None


def test_a_huge_answer_is_given_up():
    with (
        answering(b" " * ((1 << 24) + 2)) as server,
        pytest.raises(UserError, match="more than 16 MiB: this cannot be Prometheus"),
    ):
        AlertsReader(server.url).alerts()


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does this with its only connection; yields its port."""

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65_536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def drips(connection: socket.socket) -> None:
    """Sends a header that never ends, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def is_silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the other side gives up


@pytest.mark.parametrize("answer", [drips, is_silent])
def test_an_answer_that_does_not_come_in_time_is_one_sentence(answer, monkeypatch):
    monkeypatch.setattr(prometheus_alerts, "_TIMEOUT_S", 0.3)
    began_s = time.monotonic()
    with (
        listening(answer) as port,
        pytest.raises(UserError, match=r"did not answer within 0.3 s: check the address"),
    ):
        AlertsReader(f"http://127.0.0.1:{port}").alerts()
    assert time.monotonic() - began_s < 5


def test_a_server_that_speaks_another_protocol_is_one_sentence():
    with (
        listening(lambda connection: connection.sendall(b"220 mail.example.org ESMTP\r\n")) as port,
        pytest.raises(UserError, match="does not answer as an HTTP server does: check the port"),
    ):
        AlertsReader(f"http://127.0.0.1:{port}").alerts()


def test_a_server_without_tls_is_one_sentence():
    with answering("{}") as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(UserError, match=r"does not speak TLS as expected .* with http://"):
            AlertsReader(url).alerts()


def test_a_certificate_must_be_trusted(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("prometheus"))
    with answering(json.dumps({"status": "success", "data": {"alerts": []}})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        with pytest.raises(UserError, match=r"not trusted \(.*\): .* in SSL_CERT_FILE"):
            AlertsReader(url).alerts()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        assert AlertsReader(url).alerts() == []
        with pytest.raises(UserError, match=r"not trusted \(.*localhost.*\): use the name that"):
            AlertsReader(url.replace("127.0.0.1", "localhost")).alerts()


def test_a_user_name_and_a_password_are_sent_and_never_shown():
    with answering("{}", 401) as server:
        url = server.url.replace("http://", "http://reader:s%40fe@")
        with pytest.raises(UserError, match="https://USER:PASSWORD@HOST") as error:
            AlertsReader(url).alerts()
        both = base64.b64encode(b"reader:s@fe").decode()
        assert server.asked == [("/api/v1/alerts", f"Basic {both}")]
    assert "fe@" not in str(error.value)
    with pytest.raises(UserError, match="give only one of them"):
        AlertsReader(url, "secret")
    with pytest.raises(UserError, match="the given text is not the address") as error:
        AlertsReader("http://reader:s3cret@host:port")
    assert "s3cret" not in str(error.value)


def test_an_alert_cannot_move_the_cursor_of_a_terminal():
    strange = alert("A", "firing", "info", summary="a\x1b[2Jb\nc")
    with answering(json.dumps({"status": "success", "data": {"alerts": [strange]}})) as server:
        (found,) = AlertsReader(server.url).alerts()
    assert found.summary == "a [2Jb c"


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:9090", "ftp://x", "http://", "http://[::1", "http://h:x", "http://h:0"),
        *("http://h/ x", "http://h\n", "http://h/?a=b", "http://h:9090/#alerts"),
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match="is not the address of a server"):
        AlertsReader(url)


def test_a_token_that_no_header_may_have_is_refused_without_showing_it():
    with pytest.raises(UserError, match="no HTTP header may have") as error:
        AlertsReader("http://localhost:9090", "se\ncret")
    assert "cret" not in str(error.value).replace("secret", "")
