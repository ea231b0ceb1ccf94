"""A head with token authentication, and a laptop that knows its address and its token alone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rlcar import checkpoint

pytestmark = pytest.mark.ray

TOKEN = "a-token-that-no-log-may-show-0123456789"
START_S = 120.0
# So short that the training only drives; what it learns is tested elsewhere.
QUICK = ("--mode", "test", "--set", "training.env_steps=256", "--simulators", "1")


def free_ports(number):
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [server.getsockname()[1] for server in servers]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of its own, with its own home; returns the dashboard's address and the home."""
    home = tmp_path_factory.mktemp("head")
    gcs, dashboard, agent, metrics, client = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = os.environ | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_TMPDIR": folder,
            "RAY_worker_niceness": "0",
            "JAX_PLATFORMS": "cpu",
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=3"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--ray-client-server-port={client}", "--disable-usage-stats"]
        with (home / "said").open("w") as said:
            process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        try:
            end_s = time.monotonic() + START_S
            while "Ray runtime started" not in (home / "said").read_text():
                assert process.poll() is None, (home / "said").read_text()
                assert time.monotonic() < end_s
                time.sleep(0.2)
            yield f"127.0.0.1:{dashboard}", home
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def laptop(head, tmp_path):
    """Starts `rlcar` in an empty folder, with no more of Ray in its environment than is given."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}

    def start(*arguments, **variables):
        return subprocess.Popen(
            [sys.executable, "-m", "rlcar.cli", *arguments],
            cwd=folder,
            env=clean | {"HOME": str(tmp_path)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def done(process, timeout_s=240.0):
    stdout, stderr = process.communicate(timeout=timeout_s)
    assert TOKEN not in stdout + stderr
    return process.returncode, stdout, stderr


def assert_is_one_sentence(result, message):
    code, _, stderr = result
    assert code == 2, stderr
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_training_needs_only_the_address_and_the_token(head, laptop, tmp_path):
    address, home = head
    (tmp_path / "token").write_text(TOKEN + "\n")
    command = ("submit", "--address", address, "--", "train", *QUICK, "--name", "quick")
    code, stdout, stderr = done(laptop(*command, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")))
    assert code == 0, (stdout, stderr)
    assert "256/256 env steps (100%)" in stdout
    assert "figure env_steps=" in stdout
    assert "the run will be in ~/rlcar-runs of the head node" in stderr
    assert stderr.splitlines()[-1].endswith(": succeeded")
    assert (home / "rlcar-runs" / "quick" / "report.json").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_missing_and_a_wrong_token_are_one_sentence_each(head, laptop, tmp_path):
    command = ("submit", "--address", head[0], "--", "train", *QUICK)
    missing, wrong = laptop(*command), laptop(*command, RAY_AUTH_TOKEN="wrong" * 8)
    assert_is_one_sentence(done(missing), "wants a token and there is none here: set RAY_AUTH_TOK")
    assert_is_one_sentence(done(wrong), "refuses the token of RAY_AUTH_TOKEN: replace it")


def test_ctrl_c_detaches_and_the_job_is_listed_watched_and_stopped_with_a_save(head, laptop):
    address, home = head
    where, token = ("--address", address), {"RAY_AUTH_TOKEN": TOKEN}
    endless = ("--mode", "test", "--local", "--name", "endless", "--runs", str(home))
    endless += ("--set", "training.env_steps=100000000", "--set", "training.checkpoint_every_s=9e9")
    follower = laptop("submit", *where, "--", "train", *endless, **token)
    end_s = time.monotonic() + START_S
    while not (home / "endless" / "metrics.jsonl").exists():
        assert follower.poll() is None, follower.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.2)
    follower.send_signal(signal.SIGINT)
    code, _, stderr = done(follower)
    assert code == 130
    assert "detached, the job goes on" in stderr
    code, stdout, stderr = done(laptop("jobs", "list", *where, "--json", **token))
    job = json.loads(stdout)[-1]
    assert job["state"] == "running"
    assert f"rlcar jobs logs {job['job']}" in stderr or job["command"].startswith("train --mode")

    code, stdout, _ = done(laptop("monitor", *where, "--json", **token))
    seen = json.loads(stdout)
    assert [run["state"] for run in seen["runs"] if run["name"] == job["job"]] == ["running"]
    assert [node["state"] for node in seen["nodes"]] == ["alive"]

    assert_is_one_sentence(
        done(laptop("jobs", "stop", "nosuch", *where, **token)), "no job 'nosuch'"
    )
    code, _, stderr = done(laptop("jobs", "stop", job["job"], *where, **token))
    assert (code, stderr) == (0, f"{job['job']}: stopped\n")
    assert checkpoint.latest(home / "endless" / "checkpoints") is not None
    code, stdout, _ = done(laptop("jobs", "logs", job["job"], *where, **token))
    assert code == 130
    assert "stopped; continue with: rlcar train --resume" in stdout
    kept = done(laptop("jobs", "logs", job["job"], *where, "--no-follow", **token))[1]
    assert kept.strip() == stdout.strip()


def test_the_doctor_looks_at_the_cluster_from_outside_and_from_inside(head, laptop, tmp_path):
    result = laptop("doctor", "--address", head[0], "--json", RAY_AUTH_TOKEN=TOKEN)
    code, stdout, stderr = done(result)
    findings = json.loads(stdout)["findings"]
    assert [one for one in findings if one["state"] == "problem"] == []
    assert (code, stderr) == (0, "")
    of = {(one["where"], one["check"]): one for one in findings}
    assert of["the cluster, from here", "versions"]["state"] == "ok"
    assert of["the cluster, from here", "clock"]["state"] == "ok"
    assert of["the cluster, from here", "control service"]["found"].endswith("is open")
    assert of["its head node", "token"]["found"].startswith("RAY_AUTH_MODE token")
    assert of["its head node", "packages"]["state"] == "ok"
    refused = laptop("doctor", "--address", head[0], "--json")
    code, stdout, _ = done(refused)
    problems = [one for one in json.loads(stdout)["findings"] if one["state"] == "problem"]
    assert code == 1
    assert ["wants a token" in one["found"] for one in problems] == [True]
