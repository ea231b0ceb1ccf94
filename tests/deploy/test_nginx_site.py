"""nginx with TLS in front of a real policy server: cars drive, and limits hold."""

import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serve.client import DriveClient
from tests.support.installed_host import (
    NGINX,
    ROOT,
    install_host,
    nginx_command,
    running,
    wait_until_ready,
)

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is missing: apt install nginx-light")
SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = install_host(tmp_path_factory.mktemp("host"))
    host.set_options("serve.env", "RLCAR_SERVE_OPTIONS", "--allowed-host localhost --page")
    service = str(host.root / "opt/rlcar/bin/rlcar-service")
    with running([service, "serve"], nginx_command(host)):
        wait_until_ready(host)
        yield host


@pytest.fixture
def web(host):
    headers = {"authorization": f"Bearer {host.admin_token}"}
    with httpx.Client(verify=host.tls(), base_url=host.url, headers=headers) as client:
        yield client


def act(client, headers=None, **changes):
    return client.post("/v1/act", json={"observation": SEEN, **changes}, headers=headers)


@pytest.mark.parametrize("websocket", [False, True])
def test_a_car_drives_through_tls(host, monkeypatch, websocket):
    monkeypatch.setenv("SSL_CERT_FILE", str(host.certificate))
    options = {"token": host.token, "timeout_ms": 10_000}
    with DriveClient(host.url, websocket=websocket, **options) as car:
        replies = [car.act(SEEN, is_first=step == 0) for step in range(5)]
    assert [reply.source for reply in replies] == ["model"] * 5


def test_the_page_is_shown_and_needs_a_token(host, web):
    answer = web.get("/")
    assert answer.status_code == 200
    assert "rlcar" in answer.text
    assert "max-age=63072000" in answer.headers["strict-transport-security"]
    assert httpx.get(host.url, verify=host.tls()).status_code == 401


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/./metrics", "/metrics?a"]
)
def test_metrics_are_hidden_from_outside(host, web, path):
    # As an absolute address, which httpx does not take for a host name.
    assert web.get(f"{host.url}{path}").status_code == 404
    direct = httpx.get(
        f"http://127.0.0.1:{host.serve_port}/metrics",
        headers={"authorization": f"Bearer {host.admin_token}"},
    )
    assert "rlcar_" in direct.text


def test_http_is_sent_to_https(host):
    site = (host.root / "etc/nginx/conf.d/rlcar.conf").read_text()
    port = re.search(r"listen (\d+);", site).group(1)
    answer = httpx.get(f"http://localhost:{port}/v1/models?a=1")
    assert answer.status_code == 308
    assert answer.headers["location"] == "https://localhost/v1/models?a=1"


def test_an_old_protocol_is_refused(host):
    address = f"localhost:{host.https_port}"
    for option, is_accepted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", address, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("Cipher is (NONE)" not in done.stdout) == is_accepted, option


def test_http_2_is_spoken(host):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{host.https_port}", "-alpn", "h2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",  # the first frames of the server are no text
        check=False,
    )
    assert "ALPN protocol: h2" in done.stdout


def test_a_body_above_the_limit_is_refused(web):
    assert act(web, session="x" * 300_000).status_code == 413
    assert act(web).json()["source"] == "model"


def test_the_address_of_a_client_cannot_be_forged(host, web):
    # Failed logins are counted for each address: a client that could choose its own would escape.
    statuses = set()
    for number in range(30):
        forged = {"x-forwarded-for": f"10.1.2.{number}", "authorization": "Bearer wrong"}
        statuses.add(act(web, headers=forged).status_code)
    assert statuses == {401, 429}


def failed_login(host, source, **headers):
    """Returns the status of a login with a wrong token from one of this host's addresses."""
    with httpx.Client(
        transport=httpx.HTTPTransport(verify=host.tls(), local_address=source)
    ) as stranger:
        headers = {"authorization": "Bearer wrong", **headers}
        return stranger.post(
            f"https://localhost:{host.https_port}/v1/act", headers=headers
        ).status_code


def test_the_server_limits_the_address_of_the_client_not_that_of_nginx(host):
    statuses = [failed_login(host, "127.0.0.2") for _ in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    forged = {
        "x-forwarded-for": "127.0.0.3",
        "forwarded": "for=127.0.0.3",
        "x-real-ip": "127.0.0.3",
    }
    assert failed_login(host, "127.0.0.2", **forged) == 429
    assert failed_login(host, "127.0.0.3", **{"x-forwarded-for": "127.0.0.2"}) == 401


def answer_to(host, *lines, body=b""):
    """Sends a request as it is; returns what comes back until the headers end or nginx closes."""
    with (
        socket.create_connection(("localhost", host.https_port), timeout=60) as plain,
        host.tls().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        lines = (*lines, f"Authorization: Bearer {host.admin_token}", "", "")
        connection.sendall("\r\n".join(lines).encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer.decode("latin-1")


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        (["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\nGET /metrics", 400),
        (["Transfer-Encoding: xchunked", "Content-Length: 4"], b"abcd", 501),
        (["Host: evil.example.org"], b"", 400),
        ([f"X: {'a' * 5000}"], b"", 400),
        (["Content-Length: 999999999"], b"", 413),
        (["Transfer-Encoding: chunked"], b"50000\r\n" + b"a" * 0x50000, 413),
    ],
    ids=["two lengths", "unknown encoding", "two hosts", "long header", "long body", "long chunk"],
)
def test_an_ambiguous_or_excessive_request_does_not_reach_the_server(host, lines, body, status):
    answer = answer_to(host, "POST /v1/act HTTP/1.1", "Host: localhost", *lines, body=body)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "\r\nServer: nginx\r\n" in answer  # without its version


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_upgrade_opens_no_way_past_nginx(host, protocol):
    upgrade = ["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"]
    answer = answer_to(
        host, "GET /v1/models HTTP/1.1", "Host: localhost", f"Upgrade: {protocol}", *upgrade
    )
    assert not answer.startswith("HTTP/1.1 101 ")


def test_a_slow_request_is_ended(host):
    def ended_after_s(begin):
        with (
            socket.create_connection(("localhost", host.https_port), timeout=60) as plain,
            host.tls().wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(begin)
            began_s = time.monotonic()
            connection.recv(4096)
            return time.monotonic() - began_s

    header = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    body = b"POST /v1/act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with ThreadPoolExecutor(2) as pool:
        header_s, body_s = pool.map(ended_after_s, (header, body))
    assert 9 < header_s < 20
    assert 4 < body_s < 15


def test_an_unknown_host_name_is_refused(web):
    assert act(web, headers={"host": "evil.example.org"}).status_code == 421


# Counts the connections that an address can hold open.
COUNTS_CONNECTIONS = """
import socket
options = {"family": socket.AF_INET6, "dualstack_ipv6": True, "backlog": 1024}
listener = socket.create_server(("::", 443), **options)
for address, source in (("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "127.0.0.3"), ("::1", "::1")):
    held = []
    try:
        while len(held) < 1000:
            held.append(socket.create_connection((address, 443), 5, (source, 0)))
    except ConnectionRefusedError:
        pass
    print(len(held), flush=True)
"""


def may_change_a_firewall():
    """Whether this process may load a table in a network of its own."""
    command = ["unshare", "-n", "nft", "add", "table", "inet", "rlcar"]
    programs = [shutil.which(program) for program in ("unshare", "nft", "ip")]
    return all(programs) and subprocess.run(command, check=False).returncode == 0


@pytest.mark.skipif(not may_change_a_firewall(), reason="nft is missing, or this is not root")
def test_the_firewall_limits_the_connections_of_each_address():
    table = ROOT / "deploy/nginx/connections.nft"
    script = f'ip link set lo up && nft -f {table} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, "sh", sys.executable, "-c", COUNTS_CONNECTIONS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["200", "200", "200"], done.stderr
