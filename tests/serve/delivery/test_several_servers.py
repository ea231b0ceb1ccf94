"""A rollout on three servers behind nginx, with the documented settings; servers die and return."""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.client import DriveClient
from serve.delivery.assignment import is_canary
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model
from tests.serve.open_loop import driving_cars, flips
from tests.serve.served import program, publish
from tests.support.installed_host import NGINX, ROOT, running
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is missing: apt install nginx-light"),
    pytest.mark.long,
]
CARS, PER_S = 10, 50.0
OPTIONS = ("--set", "trusted_proxies=127.0.0.1", "--set", "poll_s=0.2", "--set", "deadline_ms=1000")
STEPS = [{"setWeight": 50}, {"pause": {}}, {"setWeight": 100}, {"pause": {"duration": "1s"}}]


def write_nginx_conf(folder, port, ports):
    """Writes the documented site with other addresses, and what Debian has around it."""
    site = (ROOT / "deploy/nginx/several-servers.conf").read_text()
    addresses = iter(ports)
    site = re.sub(r"10\.0\.0\.\d+:8000", lambda _: f"127.0.0.1:{next(addresses)}", site)
    site = site.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    assert next(addresses, None) is None
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"pid {folder}/nginx.pid;\nworker_processes 2;\nevents {{ worker_connections 512; }}\n"
        f"http {{\naccess_log off;\n{temporary}{site}\n}}\n"
    )
    return path


@contextlib.contextmanager
def balanced(folder, scratch):
    """Runs three servers behind nginx; yields the address of nginx and the servers."""
    with contextlib.ExitStack() as stack:
        contexts = [program(folder, *OPTIONS) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            servers = list(pool.map(stack.enter_context, contexts))
        port = free_port()
        path = write_nginx_conf(scratch, port, [server.port for server in servers])
        command = [NGINX, "-e", str(scratch / "error.log"), "-c", str(path), "-g", "daemon off;"]
        stack.enter_context(running(command))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url))
        yield url, servers


def is_ready(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    return False


def sessions_of(server):
    """Returns how many sessions a server holds."""
    text = httpx.get(f"{server.url}/metrics", timeout=20).text
    return int(float(re.search(r"^rlcar_sessions (\S+)$", text, re.MULTILINE)[1]))


def versions_since(told, since_s):
    ordered = sorted((one for one in told if one.sent_s >= since_s), key=lambda one: one.sent_s)
    return {one.session: one.version for one in ordered}


def wait_for_versions(told, expected):
    since_s = time.perf_counter()
    wait_until(lambda: versions_since(told, since_s) == expected)


def new_memories(told, session):
    """Returns how often a session began anew, in the order of its requests."""
    own = sorted((one for one in told if one.session == session), key=lambda one: one.sent_s)
    return sum(one.steps == 1 for one in own)


def report_laps(url, names):
    """Reports a lap of each session, and one of a session that drives over a WebSocket."""
    with DriveClient(url, session="socket", websocket=True, timeout_ms=10_000) as car:
        assert car.act([0.5] * 6, is_first=True).source == "model"
        for name in (*names, "socket"):
            body, headers = {"session": name, "reward": 1.0}, {"x-session-id": name}
            answer = httpx.post(f"{url}/v1/outcome", json=body, headers=headers, timeout=20)
            assert answer.status_code == 200, answer.text
            assert "refused" not in answer.text


def test_a_rollout_goes_on_while_servers_die_and_stop_under_load(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    operator = Operator(Registry(folder), "champion", "me")
    names = [f"car-{number}" for number in range(CARS)]
    with balanced(folder, tmp_path) as (url, servers), driving_cars(url, PER_S, CARS) as told:
        wait_until(lambda: len({one.session for one in told}) == CARS)
        held = {server.port: sessions_of(server) for server in servers}
        assert sum(held.values()) == CARS  # each session is in one server
        report_laps(url, names)
        dying, stopping = sorted(servers, key=lambda one: -held[one.port])[:2]
        tree = {"strategy": {"canary": {"steps": STEPS}}, "rollback": {"enabled": False}}
        state = operator.start(2, parse_specification(tree), try_model, rollout="rollout")
        half = {name: 2 if is_canary("rollout", name, 50.0) else 1 for name in names}
        wait_for_versions(told, half)

        dying.process.kill()
        dying.process.wait()
        wait_for_versions(told, half)
        anew = [name for name in names if new_memories(told, name) > 1]
        assert len(anew) == held[dying.port]  # the others kept theirs
        with program(folder, *OPTIONS, "--port", str(dying.port)) as again:
            wait_until(lambda: sessions_of(again) == held[dying.port])
            wait_for_versions(told, half)
            wait_until(lambda: operator.counts(state).candidate.answers >= 40)
            operator.resume()
            stopping.process.terminate()
            assert stopping.process.wait(30) == 0
            wait_until(lambda: operator.read().state.phase == "Healthy")
            wait_for_versions(told, dict.fromkeys(names, 2))
    assert Registry(folder).aliases()["champion"] == 2
    assert {one.status for one in told} == {200}
    assert not flips(told)
    late_s = 1.0
    assert {one.source for one in told if one.received_s - one.sent_s < late_s} == {"model"}
