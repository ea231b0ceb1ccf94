"""Alerts of a server are read in order, and whatever else answers is one sentence."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from rlcar.errors import UserError
from rlcar.runs.prometheus_alerts import AlertsReader


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


@pytest.mark.parametrize(
    "url", ["", "localhost:9090", "ftp://x", "http://", "http://[::1", "http://h:x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match="is not the address of a server"):
        AlertsReader(url)


def test_a_token_that_no_header_may_have_is_refused_without_showing_it():
    with pytest.raises(UserError, match="no HTTP header may have") as error:
        AlertsReader("http://localhost:9090", "se\ncret")
    assert "cret" not in str(error.value).replace("secret", "")
