"""Metrics are served at every address of the host, IPv4 and IPv6, or refused with one sentence."""

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from rlcar.errors import UserError
from rlcar.system.metrics_server import serving_metrics

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Gauge("answer", "An example.", registry=found).set(42)
    return found


def answer(host: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as reply:
        return reply.read().decode()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", pytest.param("[::1]", marks=needs_ipv6)]
)
def test_every_address_of_the_host_answers(host):
    with serving_metrics(registry(), 0) as port:
        assert "answer 42.0" in answer(host, port)


def test_a_host_without_ipv6_answers_at_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_ipv6", False)
    with serving_metrics(registry(), 0) as port:
        assert "answer 42.0" in answer("127.0.0.1", port)
        with pytest.raises(OSError, match="refused|assign"):
            socket.create_connection(("::1", port), timeout=10)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_port_that_is_taken_at_one_address_is_one_sentence(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(UserError, match=rf"^--metrics-port {port} cannot be used .*in use"),
            serving_metrics(registry(), port),
        ):
            raise AssertionError


def test_the_port_is_free_again_afterwards():
    with serving_metrics(registry(), 0) as port:
        pass
    with serving_metrics(registry(), port) as again:
        assert again == port
