"""nginx with TLS in front of a real policy server: cars drive, and limits hold."""

import re
import subprocess

import httpx
import pytest

from serve.client import DriveClient
from tests.support.installed_host import (
    NGINX,
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


def test_an_unknown_host_name_is_refused(web):
    assert act(web, headers={"host": "evil.example.org"}).status_code == 421
