"""A head with token authentication, and a laptop that knows its address and its token alone.

Also what runs the commands of README and docs that need a cluster.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from rlcar.storage import checkpoint
from rlcar.system.process_usage import process_files
from tests.support.ray_start import in_turn

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]
PAGES = {ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/how-to/*.md")}
# Tests of their own run the commands of these pages.
PAGES -= {ROOT / "docs" / "tutorial-recording.md", ROOT / "docs/how-to/progressive-delivery.md"}
PAGES -= {ROOT / "docs/how-to/portable-policies.md"}
# As they stand on the pages.
DOCTOR = "rlcar doctor --address head:8265"
SUBMIT = "rlcar submit --address head:8265 -- train --mode test"
DETACHED = "rlcar submit --address head:8265 --detach -- train --runs /shared/runs --resume auto"
LIST = "rlcar jobs list --address head:8265"
LOGS = "rlcar jobs logs JOB --address head:8265"
STOP = "rlcar jobs stop JOB --address head:8265"
MONITOR = "rlcar monitor --address head:8265"
PLAIN = (
    "ray job submit --address http://head:8265 --working-dir . --runtime-env-json "
    """'{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}' -- """
    "python -m rlcar train --address auto --runs /shared/runs"
)

TOKEN = "a-token-that-no-log-may-show-0123456789"
START_S = 120.0
# So short that the training only drives; what it learns is tested elsewhere.
QUICK = ("--set", "training.env_steps=256", "--simulators", "1", "--algorithm", "ppo")


def kill_all_of(ray_folder):
    """Ends whatever was started with this folder for Ray's files."""
    wanted = f"RAY_TMPDIR={ray_folder}".encode()
    for environment in process_files("environ"):
        with contextlib.suppress(OSError):
            if wanted in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of its own, with its own home; returns the dashboard's address and the home."""
    home = tmp_path_factory.mktemp("head")
    gcs, dashboard, agent, metrics, client = (free_port() for _ in range(5))
    with (
        tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        in_turn() as turn,
    ):
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
        # Free ports: in its usual range two heads would give workers the same ones.
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        with (home / "output").open("w") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            end_s = time.monotonic() + START_S
            while "Ray runtime started" not in (home / "output").read_text():
                assert process.poll() is None, (home / "output").read_text()
                assert time.monotonic() < end_s
                time.sleep(0.2)
            turn.end()
            yield f"127.0.0.1:{dashboard}", home
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            kill_all_of(folder)  # the command of a job outlives its cluster
            process.wait()


@pytest.fixture
def laptop(head, tmp_path):
    """Starts a command of the pages in an empty folder, without anything of Ray around it."""
    address, home = head
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    program = {"rlcar": ["-m", "rlcar.cli"], "ray": ["-m", "ray.scripts.scripts"]}

    def start(command, *more, job="", cwd=folder, **variables):
        for theirs, ours in (("head:8265", address), ("/shared/runs", str(home)), ("JOB", job)):
            command = command.replace(theirs, ours)
        name, *words = shlex.split(command)
        return subprocess.Popen(
            [sys.executable, *program[name], *words, *more],
            cwd=cwd,
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


def test_every_command_of_the_pages_that_needs_a_cluster_is_one_of_these():
    lines = [
        line.split("  #")[0].strip()
        for page in PAGES
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    run_here = {DOCTOR, SUBMIT, DETACHED, LIST, LOGS, STOP, MONITOR, PLAIN}
    found = {line for line in lines if line.startswith(("rlcar ", "ray job "))}
    # tests/cluster/sweeps/test_sweep.py and tests/campaigns/test_campaign.py run those; those of
    # operation have tests of their own, and tests/docs/test_command_lines.py parses all.
    elsewhere = {line for line in found if "tune" in line or line.startswith("rlcar campaign")}
    elsewhere |= {line for line in found if "--kubernetes" in line or "--prometheus" in line}
    with_tests_of_their_own = (
        "backup",
        "restore",
        "tokens",
        "data",
        "ope",
        "offline",
        "pipeline",
        "host",
        "soak",
    )
    elsewhere |= {line for line in found if line.split()[1] in with_tests_of_their_own}
    elsewhere |= {line for line in found if "--metrics-port" in line or "--record " in line}
    assert found - elsewhere == run_here


def test_a_training_needs_only_the_address_and_the_token(head, laptop, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    token = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    code, stdout, stderr = done(laptop(SUBMIT, *QUICK, "--name", "quick", **token))
    assert code == 0, (stdout, stderr)
    assert "/256 env steps (" in stdout
    assert "figure env_steps=" in stdout
    assert "the command writes into ~/rlcar-runs on the head node" in stderr
    assert stderr.splitlines()[-1].endswith(": succeeded")
    assert (head[1] / "rlcar-runs" / "quick" / "report.json").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_missing_and_a_wrong_token_are_one_sentence_each(laptop):
    missing, wrong = laptop(SUBMIT), laptop(SUBMIT, RAY_AUTH_TOKEN="wrong" * 8)
    assert_is_one_sentence(
        done(missing), "requires a token and there is none here: set RAY_AUTH_TOK"
    )
    assert_is_one_sentence(done(wrong), "refuses the token of RAY_AUTH_TOKEN: replace it")


@pytest.mark.long
def test_ctrl_c_detaches_and_the_job_is_listed_watched_and_stopped_with_a_save(head, laptop):
    home, token = head[1], {"RAY_AUTH_TOKEN": TOKEN}
    endless = ("--mode", "test", "--local", "--name", "endless", "--algorithm", "ppo")
    endless += ("--set", "training.env_steps=100000000", "--set", "training.checkpoint_every_s=9e9")
    code, _, stderr = done(laptop(DETACHED, *endless, **token))
    job = re.search(r"submitted: (\S+) ", stderr)[1]
    assert code == 0
    assert f"rlcar jobs logs {job} --address" in stderr

    follower = laptop(LOGS, job=job, **token)
    output = []
    while not (output and " env steps (" in output[-1]):
        output.append(follower.stdout.readline())
        assert output[-1], follower.communicate()
    follower.send_signal(signal.SIGINT)
    code, _, stderr = done(follower)
    assert code == 130
    assert f"run folder: {home}/endless" in "".join(output)
    assert "detached, the job goes on" in stderr

    listed, watched = laptop(LIST, "--json", **token), laptop(MONITOR, "--json", **token)
    rows = {row["job"]: row for row in json.loads(done(listed)[1])}
    assert rows[job]["state"] == "running"
    assert rows[job]["command"].startswith("train --runs ")
    seen = json.loads(done(watched)[1])
    assert [run["state"] for run in seen["runs"] if run["name"] == job] == ["running"]
    assert [node["state"] for node in seen["nodes"]] == ["alive"]

    assert_is_one_sentence(done(laptop(STOP, job="nosuch", **token)), "has no job 'nosuch'")
    code, _, stderr = done(laptop(STOP, job=job, **token))
    assert (code, stderr) == (0, f"{job}: stopped\n")
    assert checkpoint.latest(home / "endless" / "checkpoints") is not None
    followed, kept = (
        laptop(LOGS, job=job, **token),
        laptop(LOGS, "--no-follow", job=job, **token),
    )
    code, stdout, _ = done(followed)
    assert code == 130
    assert "stopped; continue with: rlcar train --resume" in stdout
    assert done(kept)[1].strip() == stdout.strip()


def test_the_doctor_looks_at_the_cluster_from_outside_and_from_inside(laptop):
    asked, refused = laptop(DOCTOR, "--json", RAY_AUTH_TOKEN=TOKEN), laptop(DOCTOR, "--json")
    code, stdout, stderr = done(asked)
    findings = json.loads(stdout)["findings"]
    assert [finding for finding in findings if finding["state"] == "problem"] == []
    assert (code, stderr) == (0, "")
    of = {(finding["where"], finding["check"]): finding for finding in findings}
    assert of["the cluster, from here", "versions"]["state"] == "ok"
    assert of["the cluster, from here", "clock"]["state"] == "ok"
    assert of["the cluster, from here", "control service"]["found"].endswith("is open")
    assert of["its head node", "token"]["found"].startswith("RAY_AUTH_MODE token")
    assert of["its head node", "packages"]["state"] == "ok"
    code, stdout, _ = done(refused)
    problems = [
        finding for finding in json.loads(stdout)["findings"] if finding["state"] == "problem"
    ]
    assert code == 1
    assert ["requires a token" in finding["found"] for finding in problems] == [True]


def test_rays_own_client_runs_the_same_program_from_a_checkout(laptop):
    """With a preset that does not exist: our program has come so far, and quickly."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    code, stdout, stderr = done(laptop(PLAIN, "--preset", "nanno", cwd=ROOT, **token))
    assert code == 1
    assert "unknown preset 'nanno'; did you mean 'nano'?" in stdout + stderr
