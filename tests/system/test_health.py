"""The command of the image's health check, on real processes, servers and run folders."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import time

import pytest

from rlcar.system import health, process_state
from rlcar.system.heartbeat import FROZEN_AFTER_S


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200
    route = "/health/ready"

    def do_GET(self):  # noqa: N802  the name is http.server's
        self.send_response(self.status if self.path == self.route else 404)
        self.end_headers()

    def log_message(self, format, *arguments):
        pass


@contextlib.contextmanager
def _server(status, route="/health/ready"):
    handler = type("Handler", (_Answer,), {"status": status, "route": route})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_a_server_is_as_healthy_as_it_says(tmp_path, status, is_healthy):
    with _server(status) as port:
        words = ["--lane", "realtime", "--host", "0.0.0.0", f"--port={port}"]
        verdict = health.health_of(health.Program("serve", words, tmp_path))
    assert verdict.is_healthy is is_healthy
    assert str(status) in verdict.reason


def test_a_server_that_waits_for_its_first_model_is_healthy(tmp_path):
    with _server(200, "/health/live") as port:
        words = ["--wait-for-model", f"--port={port}"]
        assert health.health_of(health.Program("serve", words, tmp_path)).is_healthy


def test_a_monitor_is_asked_only_where_it_exports_metrics(tmp_path):
    with _server(200, "/metrics") as port:
        words = ["--metrics-port", str(port)]
        assert health.health_of(health.Program("monitor", words, tmp_path)).is_healthy
    assert not health.health_of(health.Program("monitor", words, tmp_path)).is_healthy
    assert health.health_of(health.Program("monitor", ["--watch"], tmp_path)).is_healthy


def test_a_server_that_does_not_answer_is_unhealthy(tmp_path):
    with _server(200) as port:
        pass
    verdict = health.health_of(health.Program("serve", ["--port", str(port)], tmp_path))
    assert not verdict.is_healthy
    assert f"127.0.0.1:{port}" in verdict.reason


@pytest.mark.parametrize("port", ["abc", "99999999", "nan"])
def test_a_port_that_is_none_is_no_traceback(tmp_path, port):
    verdict = health.health_of(health.Program("serve", ["--port", port], tmp_path))
    assert not verdict.is_healthy


def test_a_training_is_healthy_until_its_signs_of_life_end(tmp_path):
    program = health.Program("train", ["--name", "x"], tmp_path)
    assert health.health_of(program).is_healthy  # It has not begun its run yet.
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    running = process_state.describe("running") | {"stage": "working", "silent_s": 0.0}
    process_state.write(folder, running)
    assert health.health_of(program) == (True, f"{folder} is being trained")
    stopped_s = time.time() - FROZEN_AFTER_S - 5  # as after SIGSTOP: nobody renews the file
    os.utime(folder / process_state.FILE, (stopped_s, stopped_s))
    verdict = health.health_of(program)
    assert not verdict.is_healthy
    assert "no sign of life" in verdict.reason
    process_state.write(folder, running | {"silent_s": 1000.0})
    verdict = health.health_of(program)
    assert not verdict.is_healthy
    assert "no progress in stage 'working'" in verdict.reason
    process_state.write(folder, process_state.describe("ended") | {"silent_s": 1000.0})
    assert health.health_of(program).is_healthy


def test_runs_that_others_train_do_not_count(tmp_path):
    program = health.Program("train", [f"--runs={tmp_path}"], tmp_path)
    folder = tmp_path / "other"
    folder.mkdir()
    elsewhere = process_state.describe("running") | {"host": "elsewhere", "silent_s": 1e6}
    process_state.write(folder, elsewhere | {"stage": "working"})
    assert health.health_of(program).is_healthy


def test_other_programs_are_healthy_while_they_run(tmp_path):
    assert health.health_of(None).is_healthy
    assert health.health_of(health.Program("tune", [], tmp_path)).is_healthy


def _process(folder, number, words, working_directory):
    entry = folder / str(number)
    entry.mkdir(parents=True)
    (entry / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    (entry / "cwd").symlink_to(working_directory)


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["/usr/bin/tini", "--", "rlcar", "serve", "--port", "9"], "serve"),
        (["/opt/rlcar/bin/python", "/opt/rlcar/bin/rlcar", "watch", "latest"], "watch"),
        (["python", "-m", "rlcar", "train", "--local"], "train"),
        (["python", "-m", "rlcar.cli", "train", "--local"], "train"),
        (["bash", "-c", "rlcar train"], None),
        (["rlcar", "--help"], None),
        (["raylet", "--rlcar"], None),
        ([], None),
    ],
)
def test_the_program_is_found_by_its_command_line(tmp_path, words, verb):
    _process(tmp_path / "proc", 7, words, tmp_path)
    found = health.find_program(tmp_path / "proc")
    assert (found and found.verb) == verb
    if found is not None:
        assert found.folder == tmp_path


def test_the_oldest_program_counts(tmp_path):
    _process(tmp_path / "proc", 10, ["rlcar", "drive", "http://x"], tmp_path)
    _process(tmp_path / "proc", 9, ["rlcar", "serve"], tmp_path)
    (tmp_path / "proc" / "self").mkdir()
    found = health.find_program(tmp_path / "proc")
    assert found is not None
    assert found.verb == "serve"


def test_the_module_is_light():
    """It runs every few seconds in each container, so it must not load NumPy or JAX."""
    program = "import sys, rlcar.system.health; print({'numpy', 'jax', 'typer'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
