"""Addresses as users write them, and what may answer there instead of a dashboard."""

import http.server
import socket
import threading

import pytest

from cluster.jobs.dashboard import authentication_mode, connect, dashboard_url
from rlcar.errors import UserError


@pytest.fixture(autouse=True)
def _no_address(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (None, "http://127.0.0.1:8265"),
        ("auto", "http://127.0.0.1:8265"),
        ("head", "http://head:8265"),
        ("head:81", "http://head:81"),
        ("http://head:81/", "http://head:81"),
        ("https://ray.example.org", "https://ray.example.org"),
        ("https://example.org/ray/", "https://example.org/ray"),
        ("ray://head:10001", "http://head:8265"),
        ("[::1]:81", "http://[::1]:81"),
    ],
)
def test_an_address_becomes_the_url_of_a_dashboard(address, url):
    assert dashboard_url(address) == url


def test_rays_own_variables_stand_in_for_an_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert dashboard_url(None) == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:81")
    assert dashboard_url(None) == "http://other:81"
    assert dashboard_url("given:82") == "http://given:82"


@pytest.mark.parametrize("address", ["head:port", "ftp://head", "http://", "http://me:secret@head"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="is not the address of a Ray dashboard"):
        dashboard_url(address)


def test_a_closed_port_and_an_unknown_host_are_told_apart():
    with pytest.raises(UserError, match=r"nothing answers at .*:1 \(Connection refused\)"):
        connect("127.0.0.1:1")
    with pytest.raises(UserError, match="unknown host name"):
        connect("nosuch.invalid")


def serve_once(answer):
    """A server that says `answer` to the second of two connections; the first is a knock."""
    server = socket.create_server(("127.0.0.1", 0))

    def run():
        server.accept()[0].close()
        connection = server.accept()[0]
        connection.recv(1000)
        connection.sendall(answer)
        connection.close()

    threading.Thread(target=run, daemon=True).start()
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00 HTTP/2 settings",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_something_else_at_the_port_is_one_sentence(answer):
    server, url = serve_once(answer)
    with server, pytest.raises(UserError, match="is not a Ray dashboard") as caught:
        authentication_mode(url, 5.0)
    assert str(caught.value).isprintable()


def test_another_web_server_is_not_taken_for_a_dashboard():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="is not a Ray dashboard"):
            connect(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_server_that_never_answers_is_given_up():
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with server, pytest.raises(UserError, match="no answer in time"):
        authentication_mode(url, 0.3)
