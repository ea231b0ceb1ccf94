"""Webhooks, Grafana and Prometheus of rollouts, with real servers on both sides."""

import asyncio
import contextlib
import hashlib
import hmac
import http.server
import json
import shutil
import subprocess
import threading
import time

import pytest
import yaml

from benchmarks.processes import free_port
from rlcar.cli.serving import serve
from rlcar.errors import ConfigError
from rlcar.registry import Registry
from serve.delivery import prometheus_source
from serve.delivery.integrations import Prometheus, read_integrations
from serve.delivery.operator import Operator
from serve.delivery.prometheus_source import PrometheusSource
from serve.delivery.specification import AnalysisMetric, parse_specification
from serve.policy.policy import try_model
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

SECRET, TOKEN = "a-secret-key", "a-token"


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what it is sent; the first `failures` requests get the status 503."""

    daemon_threads = True

    def __init__(self, failures=0, delay_s=0.0, status=200):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failures, self.delay_s, self.status = failures, delay_s, status
        self.accepted, self.requests = [], 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.requests += 1
            is_refused = self.server.requests <= self.server.failures
            if not is_refused:
                self.server.accepted.append((self.path, dict(self.headers), body))
        time.sleep(self.server.delay_s)
        with contextlib.suppress(OSError):  # the client waits no longer
            self.send_response(503 if is_refused else self.server.status)
            self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def receiving(**options):
    with Receiver(**options) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        try:
            yield receiver
        finally:
            receiver.shutdown()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    return folder


@pytest.fixture
def operator(folder):
    return Operator(Registry(folder), "champion", "me")


def write(tmp_path, **tree):
    path = tmp_path / "integrations.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def start(operator, *steps):
    tree = {"strategy": {"canary": {"steps": list(steps)}}, "rollback": {"enabled": False}}
    return operator.start(2, parse_specification(tree), try_model)


def events(receiver):
    return [json.loads(body)["entry"]["event"]["type"] for _, _, body in receiver.accepted]


def test_each_entry_is_announced_once_by_several_servers(folder, operator, tmp_path):
    with receiving(failures=2) as hook, receiving() as grafana:
        path = write(
            tmp_path,
            webhooks=[{"url": f"{hook.url}/rollouts", "secret": SECRET}],
            grafana={"url": f"{grafana.url}/grafana/", "token": TOKEN},
        )
        with (
            serving(folder, poll_s=0.05, integrations=path),
            serving(folder, poll_s=0.05, integrations=path),
        ):
            start(operator, {"setWeight": 50}, {"pause": {}})
            wait_until(lambda: events(hook) == ["started", "advanced"])
            operator.abort("enough")
            wait_until(lambda: events(hook)[2:] == ["aborted"])
            wait_until(lambda: len(grafana.accepted) == 3)
        with serving(folder, poll_s=0.05, integrations=path):  # it announces nothing again
            time.sleep(0.5)
    assert events(hook) == ["started", "advanced", "aborted"]
    place, headers, body = hook.accepted[-1]
    assert place == "/rollouts"
    assert json.loads(body)["text"].startswith("aborted: enough (champion, rollout ")
    assert json.loads(body)["rollout"]["phase"] == "Degraded"
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert {name.lower(): value for name, value in headers.items()}[
        "x-rlcar-signature-256"
    ] == f"sha256={digest}"
    place, headers, body = grafana.accepted[-1]
    annotation = json.loads(body)
    assert place == "/grafana/api/annotations"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert annotation["tags"] == ["rlcar", "rollout", "champion"]
    assert annotation["time"] == round(1000.0 * operator.read().entries[-1].time_s)


def test_receivers_that_fail_hold_nothing_up(folder, operator, tmp_path, caplog):
    with receiving(delay_s=30.0) as slow, receiving(status=404) as wrong, receiving() as good:
        hooks = [{"url": f"{one.url}/secret"} for one in (slow, wrong, good)]
        path = write(tmp_path, webhooks=hooks)
        with serving(folder, poll_s=0.05, integrations=path) as server:
            start(operator, {"setWeight": 50}, {"pause": {"duration": "100ms"}}, {"pause": {}})
            wait_until(lambda: operator.read().state.step == 2)
            # The slow one still has the first message.
            wait_until(lambda: events(good) == ["started", "advanced", "advanced"])
            assert len(slow.accepted) == 1
            metrics = server.config.app.app.metrics
            wait_until(lambda: metrics.failed_messages == 3)
    assert wrong.requests == 3  # once for each message, as the address will not become right
    assert "127.0.0.1 was not told of the rollout: status 404" in caplog.text
    assert "secret" not in caplog.text


def test_a_registry_that_cannot_be_written_is_a_failed_message(folder, operator, tmp_path, caplog):
    (folder / "rollout-notices").write_text("")
    with receiving() as hook:
        path = write(tmp_path, webhooks=[{"url": hook.url}])
        with serving(folder, poll_s=0.05, integrations=path) as server:
            start(operator, {"pause": {}})
            metrics = server.config.app.app.metrics
            wait_until(lambda: metrics.failed_messages == 1)
    assert hook.requests == 0
    assert "entry 1 of the rollout is not announced: " in caplog.text
    assert str(folder / "rollout-notices") in caplog.text


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"webhook": []}, "unknown setting 'webhook'; did you mean 'webhooks'?"),
        ({"webhooks": [{"url": "ftp://host/x"}]}, "webhooks.0.url: an address begins with http"),
        *(
            ({"webhooks": [{"url": url}]}, "webhooks.0.url: an address begins with http")
            for url in ("http://", "http://[v1.x]/", "http://ex\u00e4mple..com/", "http://xn--/")
        ),
        ({"grafana": {"url": "http://g/?x=1", "token": "t"}}, "ends before the question mark"),
        ({"grafana": {"url": "http://grafana"}}, "grafana.token: missing"),
        ({"grafana": {"url": "http://grafana", "token": "two words"}}, "grafana.token: a secret"),
        ({"prometheus": "http://prometheus"}, "prometheus: "),
        ([], "holds a list, not settings"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tree, reason, tmp_path):
    path = tmp_path / "integrations.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as caught:
        serve(lane="realtime", registry=str(tmp_path / "none"), integrations=path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "two words" not in str(caught.value)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml"):
        read_integrations(tmp_path / "none.yaml")


needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


@contextlib.contextmanager
def prometheus(folder, target):
    """Runs Prometheus, which reads one target every 200 ms."""
    folder.mkdir()
    job = {"job_name": "rlcar", "static_configs": [{"targets": [target]}]}
    every = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump({"global": every, "scrape_configs": [job]})
    )
    port = free_port()
    options = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    process = subprocess.Popen(
        ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(30)


def metric(query, name="weight"):
    return {"name": name, "query": query, "successCondition": ">= 50", "interval": "100ms"}


@needs_prometheus
def test_a_query_decides_an_analysis(folder, operator, tmp_path, caplog):
    port = free_port()
    query = "rlcar_rollout_weight and (rlcar_rollout_candidate_version == {{candidate}})"
    # Until Prometheus has read the server for the first time, there are no data.
    endless = {"count": 1000, "consecutiveErrorLimit": 1000}
    several = {"query": '{__name__=~"rlcar_rollout_weight|rlcar_sessions"}', "dryRun": True}
    metrics = [metric(query) | endless, metric("") | endless | several | {"name": "two series"}]
    with prometheus(tmp_path / "prometheus", f"127.0.0.1:{port}") as url:
        path = write(tmp_path, prometheus={"url": url})
        with serving(folder, port=port, poll_s=0.05, integrations=path):
            start(operator, {"setWeight": 50}, {"analysis": {"metrics": metrics}})
            wait_until(lambda: last_value(operator, "weight") == 50.0)
            wait_until(lambda: "the query gives 2 series" in caplog.text)
        assert last_value(operator, "two series") is None


def test_a_rollback_does_not_wait_for_a_query(folder, operator, tmp_path, monkeypatch):
    monkeypatch.setattr(prometheus_source, "_TIMEOUT_S", 60.0)
    with receiving(delay_s=40.0) as silent:
        path = write(tmp_path, prometheus={"url": silent.url})
        with serving(folder, poll_s=0.05, integrations=path) as server:
            analysis = {"analysis": {"metrics": [metric("up")]}}
            tree = {"strategy": {"canary": {"steps": [{"setWeight": 50}, analysis]}}}
            operator.start(2, parse_specification(tree), try_model)
            wait_until(lambda: silent.requests == 1)
            arms = server.config.app.app.action_service.arms
            server.servers[0].get_loop().call_soon_threadsafe(arms.raise_alarm, "bad", {})
            wait_until(lambda: operator.read().state.phase == "Degraded", 20.0)


def last_value(operator, name):
    tally = operator.read().state.tallies.get(name)
    return None if tally is None else tally.last


def test_a_server_without_prometheus_leaves_queries_to_others(folder, operator, caplog):
    with serving(folder, poll_s=0.05):
        analysis = {"analysis": {"metrics": [metric("up")]}}
        start(operator, {"setWeight": 50}, analysis)
        wait_until(lambda: "name it in the file of --integrations" in caplog.text)
        time.sleep(0.3)
    assert operator.read().state.tallies == {}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>", "is not that of Prometheus"),
        (401, b"", "is not that of Prometheus"),
        (400, b'{"status": "error", "error": "1:2: parse error"}', "1:2: parse error"),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "a matrix"),
        (200, b'{"status": "success", "data": {"resultType": "vector", "result": []}}', "no data"),
        (
            200,
            b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "NaN"]}}',
            "the query gives NaN",
        ),
        (200, b" " * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_an_answer_without_a_number_has_a_reason(status, body, reason, operator, caplog):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    state = start(operator, {"pause": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = PrometheusSource(Prometheus(url=f"http://127.0.0.1:{server.server_port}"))
        asked = [AnalysisMetric.model_validate(metric("up"))]
        assert asyncio.run(source.measure(asked, state)) == {"weight": None}
        server.shutdown()
    assert reason in caplog.text
