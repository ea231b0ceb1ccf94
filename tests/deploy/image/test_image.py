"""The image, really built and run: any user, read-only root, no network, no capabilities."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from rlcar import __version__
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.system import process_state
from tests.deploy.image import containers
from tests.deploy.image.containers import DATA, ROOT, Container, run
from tests.support.tiny_run import trained
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]

START_S = 300  # of a server or a training, on a busy machine


def _shell(image, script, **given):
    return run(image, "-c", script, options=["--entrypoint=/bin/bash"], **given)


def test_the_image_says_what_it_is(image, commit):
    inspected = json.loads(containers.podman("image", "inspect", image))[0]
    details = inspected["Config"]
    labels = details["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == commit
    assert labels["org.opencontainers.image.created"].endswith("Z")
    assert labels["org.opencontainers.image.base.name"] == containers.base_image()
    assert details["User"] == "10001:10001"
    assert details["Entrypoint"] == ["/usr/bin/tini", "--", "rlcar"]
    assert f"RLCAR_COMMIT={labels['org.opencontainers.image.revision']}" in details["Env"]
    # Docker's format has a health check; OCI's would have lost it.
    check = inspected.get("Healthcheck") or details.get("Healthcheck")  # Podman, Docker
    assert "rlcar.system.health" in json.dumps(check)


def test_nothing_of_the_build_and_no_privileged_file_is_in_it(image):
    packages = "/opt/rlcar/lib/*/site-packages"
    script = f"""
        ls -d /build /opt/uv /var/cache/uv /run/secrets/certificates /added /before 2>/dev/null
        ls -d {packages}/{{pytest,sphinx,mypy,pip,tests,benchmarks}} 2>/dev/null
        find / -xdev -name .git 2>/dev/null
        find / -xdev -type f -perm /6000 2>/dev/null
        find /usr /opt /etc /bin /home -xdev -type f ! -user root 2>/dev/null
        find /usr /opt /bin -xdev -type f -perm /o+w 2>/dev/null
        python -c 'import rlcar; print(rlcar.__file__)'
    """
    done = _shell(image, script, user="10001:10001")
    assert [line.rpartition("site-packages")[2] for line in done.stdout.split()] == [
        "/rlcar/__init__.py"  # and it is no editable install
    ]


def test_the_process_has_no_capability_and_cannot_gain_one(image):
    script = "grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status; touch /opt/x; id -u"
    done = _shell(image, script)
    found = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert "Read-only file system" in done.stderr
    assert done.stdout.splitlines()[-1] == "12345"


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_a_training_runs_to_its_report(image, volumes, figure, kind):
    arguments = ["train", "--mode", "test", "--name", kind, *(["--local"] * (kind == "local"))]
    began_s = time.monotonic()
    done = run(image, *arguments, options=volumes.options())
    figure(f"train_{kind}_s", time.monotonic() - began_s)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "figure lap_rate=" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    folder = volumes.folder / "runs" / kind
    assert process_state.read(folder)["state"] == "ended"
    details = json.loads(containers.podman("image", "inspect", image))[0]["Config"]["Labels"]
    record = json.loads((folder / "run.json").read_text())
    assert record["commit"] == details["org.opencontainers.image.revision"]
    owners = {path.stat().st_uid for path in folder.rglob("*")}
    assert owners == {12345}


def test_without_a_volume_a_training_says_in_one_sentence_where_it_cannot_write(image):
    done = run(image, "train", "--local", "--mode", "test")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "runs" in done.stderr
    assert "Read-only" in done.stderr or "read-only" in done.stderr


@pytest.mark.parametrize("lane", ["realtime", "ray"])
def test_a_served_policy_drives_and_the_health_check_sees_it(image, volumes, lane):
    shutil.copytree(trained()[0], volumes.folder / "runs" / "tiny")
    subprocess.run(["chown", "-R", "12345:0", str(volumes.folder / "runs")], check=True)
    command = ["serve", "--lane", lane]
    with Container(image, *command, options=volumes.options()) as server:
        wait_until(lambda: server.health() == "healthy", START_S)
        client = ["drive", "http://127.0.0.1:8000", "--timeout-ms", "5000"]
        done = run(image, *client, network=f"container:{server.name}")
        assert done.returncode == 0, done.stdout + done.stderr + server.logs()
        assert "figure fallbacks=0" in done.stdout + done.stderr
        assert server.stop(30) in (0, 143)


def test_sigterm_saves_a_checkpoint_from_which_the_next_container_goes_on(image, volumes):
    long = ["train", "--mode", "test", "--name", "long", "--resume", "auto"]
    long += ["--set", "training.env_steps=10000000", "--set", "training.checkpoint_every_s=3600"]
    folder = volumes.folder / "runs" / "long"
    steps = []
    for _ in range(2):
        with Container(image, *long, options=volumes.options()) as trainer:
            before = steps[-1] if steps else 0
            wait_until(lambda: _env_steps(folder) > before + 1000, START_S)  # noqa: B023
            assert trainer.health() == "healthy", trainer.logs()
            began_s = time.monotonic()
            code = trainer.stop(60)
            assert time.monotonic() - began_s < 60
            assert code == 130, trainer.logs()  # as after Ctrl-C: stopped before its end
        save = checkpoint.latest(folder / "checkpoints")
        assert save is not None
        steps.append(save.env_steps)
    assert 1000 < steps[0] < steps[1]
    assert process_state.read(folder)["state"] == "ended"


def _env_steps(folder: Path) -> int:
    try:
        rows = read_metrics(folder / "metrics.jsonl")
    except FileNotFoundError:
        return 0
    return max((int(row["env_steps"]) for row in rows), default=0)


def test_a_change_of_the_sources_alone_is_in_the_next_build(image, tmp_path, figure):
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "models")
    )
    (copy / "rlcar" / "marker.py").write_text("SAYS = 'the new sources'\n")
    tag = "localhost/rlcar:test-changed"
    figure("image_rebuild_s", containers.build(tag, copy))
    done = _shell(tag, "python -c 'import rlcar.marker; print(rlcar.marker.SAYS)'")
    assert done.stdout == "the new sources\n", done.stderr
    containers.podman("rmi", tag)
    old = _shell(image, "python -c 'import rlcar.marker'")
    assert "No module named 'rlcar.marker'" in old.stderr


def test_it_is_a_node_of_kuberay(image, volumes):
    """The commands are those of KubeRay 1.7: of its pods, its probes and its job's submitter."""
    found = _shell(image, "bash -lc 'command -v ray python rlcar; ulimit -n'", user="10001:10001")
    assert found.stdout.split()[:3] == [
        f"/opt/rlcar/bin/{name}" for name in ("ray", "python", "rlcar")
    ]
    start = "ulimit -n 65536; ray start --head --block --dashboard-host=0.0.0.0 --num-cpus=2 "
    start += "--metrics-export-port=8080 --dashboard-agent-listen-port=52365"
    options = [*volumes.options(), "--entrypoint=/bin/bash"]
    with Container(image, "-c", "--", start, options=options) as head:
        probe = "wget --tries 1 -T 2 -q -O- http://localhost:{}/{} | grep success"
        agent = probe.format(52365, "api/local_raylet_healthz")
        control = probe.format(8265, "api/gcs_healthz")
        wait_until(
            lambda: head.execute("bash", "-c", f"{agent} && {control}").returncode == 0, START_S
        )
        healthy = (
            "import urllib.request; r=urllib.request.urlopen('http://127.0.0.1:8265/"
            "api/gcs_healthz', timeout=10); exit(0 if b'success' in r.read() else 1)"
        )
        assert head.execute("python", "-c", healthy).returncode == 0
        submit = "ray job submit --address http://127.0.0.1:8265 -- "
        submit += f"rlcar train --address auto --mode test --name job --runs {DATA}/runs "
        submit += "--set training.env_steps=512"
        done = head.execute("bash", "-c", submit, timeout_s=900)
        assert done.returncode == 0, done.stdout + done.stderr
    assert process_state.read(volumes.folder / "runs" / "job")["state"] == "ended"
    assert os.listdir(volumes.folder / "runs") == ["job"]
