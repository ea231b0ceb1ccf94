"""The stages that compute run as jobs of a real Ray cluster."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.processes import free_port, program
from cluster.jobs.dashboard import connect
from cluster.jobs.submit import jobs
from cluster.pipeline import journal
from cluster.pipeline.ray_jobs import on_cluster, require_shared
from cluster.pipeline.run import run_once
from cluster.pipeline.settings import parse_settings, read_settings
from rlcar.errors import UserError
from rlcar.registry import Registry
from tests.support.hand_made_versions import publish_follower
from tests.support.ray_start import in_turn
from tests.support.recordings import record

START_S = 120.0
FILE = """\
registry: {root}/models
folder: {root}/pipeline
collect: {{recordings: sessions, minimumEpisodes: 20, minimumTransitions: 100}}
train:
  offline:
    algorithms: [bc]
    mode: test
    settings: [training.env_steps=1024, training.evaluate_every_env_steps=1024]
gates: {{simulation: {{tracks: 8}}}}
"""


@pytest.fixture
def dashboard(tmp_path):
    """Starts a head of its own; returns the address of its dashboard."""
    gcs, port, agent, metrics, client = (free_port() for _ in range(5))
    output = tmp_path / "ray-output"
    with (
        tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        output.open("w") as file,
        in_turn() as turn,
    ):
        clean = {name: one for name, one in os.environ.items() if not name.startswith("RAY_")}
        environment = clean | {
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": folder,
            "RAY_worker_niceness": "0",
            "JAX_PLATFORMS": "cpu",
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--port={gcs}", f"--dashboard-port={port}", "--num-cpus=2"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--ray-client-server-port={client}", "--disable-usage-stats"]
        # Free ports: in its usual range two heads would give workers the same ones.
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        with program(command, env=environment, stdout=file, stderr=subprocess.STDOUT) as process:
            end_s = time.monotonic() + START_S
            while "Ray runtime started" not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < end_s
                time.sleep(0.2)
            turn.end()
            yield f"127.0.0.1:{port}"


@pytest.mark.ray
def test_the_training_and_the_gate_are_jobs_and_the_other_stages_are_not(
    dashboard, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    publish_follower(tmp_path / "models", 0.15, alias="champion")
    record(tmp_path / "sessions" / "server-1", episodes=30)
    file = tmp_path / "nightly.yaml"
    file.write_text(FILE.format(root=tmp_path))
    settings, said, shown = read_settings(file), [], []
    client = connect(dashboard)
    execute = on_cluster(client, [str(file)], shown.append, "python")
    ending = run_once(settings, Registry(settings.registry), said.append, execute)
    assert ending.outcome == "stopped at a gate", (ending, "".join(shown))
    (run,) = journal.runs(tmp_path / "pipeline")
    stages = [entry.stage for entry in run.entries()]
    assert stages == ["collect", "validate", "train", "simulation gate"]
    found = [job.metadata["rlcar"] for job in jobs(client)]
    assert found == [
        f"pipeline {file} --stage train --run 1",
        f"pipeline {file} --stage 'simulation gate' --run 1",
    ]
    assert "nightly-0001: train is the job rlcar-pipeline-" in "\n".join(said)
    assert "version 1 drives 8 laps" in "".join(shown)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folder": "pipelines/nightly"}, "folder pipelines/nightly is relative"),
        ({"registry": "models"}, "registry models is relative"),
        (
            {"gates": {"offPolicyEvaluation": {"data": "traffic"}}},
            "gates.offPolicyEvaluation.data traffic is relative",
        ),
        ({"train": {"fineTune": {}}}, "train.fineTune.runs runs is relative"),
    ],
)
def test_folders_that_a_job_elsewhere_cannot_mean_are_refused(changes, said):
    tree = {
        "folder": "/srv/rlcar",
        "registry": "s3://bucket/models",
        "collect": {"recordings": "sessions"},  # which no job reads
    }
    require_shared(parse_settings(tree, "nightly"))
    with pytest.raises(UserError, match=said):
        require_shared(parse_settings(tree | changes, "nightly"))
