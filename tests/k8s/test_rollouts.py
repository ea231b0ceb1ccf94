"""With the component `rollouts`, servers take the steps of rollouts, and change nothing else."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model
from tests.k8s.manifests import K8S, needs_kustomize, of_kind, pods
from tests.serve.served import publish
from tests.support.waiting import wait_until

MODELS = "/var/lib/rlcar/models"
# Mounts a registry ($1) at $2 as the pods do: read-only, except for the folders after it.
MOUNTS = """
set -e
full=$1 seen=$2 server=$3
shift 3
mount --bind "$full" "$seen"
mount -o remount,bind,ro "$seen"
for folder in "$@"; do mount --bind "$full/$folder" "$seen/$folder"; done
if touch "$seen/versions/x" 2> /dev/null; then exit 1; fi
exec sh -c "$server"
"""

pytestmark = needs_kustomize


def may_mount():
    """Whether this process may mount in a namespace of its own."""
    command = ["unshare", "-m", "mount", "--bind", "/tmp", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(command, check=False).returncode


def mounts_of(folder, overlay):
    """Returns the mounts of the registry in the servers of an overlay with the component."""
    shutil.copytree(K8S, folder / "k8s")
    path = folder / "k8s/overlays" / overlay / "kustomization.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["components"] = [*tree.get("components", []), "../../components/rollouts"]
    path.write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        ["kubectl", "kustomize", str(path.parent)], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(done.stdout))
    servers = [*of_kind(objects, "RayService"), *of_kind(objects, "Deployment")]
    servers = [one for one in servers if one["metadata"]["name"] != "rlcar-page"]
    found = [
        [mount for mount in pod.spec["containers"][0]["volumeMounts"] if mount["name"] == "models"]
        for pod in pods(servers)
    ]
    assert found
    assert all(mounts == found[0] for mounts in found)
    return found[0]


@pytest.mark.parametrize("overlay", ["serve", "serve-ray"])
def test_servers_may_write_into_four_folders_of_the_registry(tmp_path, overlay):
    whole, *folders = mounts_of(tmp_path, overlay)
    assert whole == {"name": "models", "mountPath": MODELS, "readOnly": True}
    names = ["rollouts", "rollout-counts", "rollout-notices", "aliases"]
    assert folders == [
        {"name": "models", "mountPath": f"{MODELS}/{name}", "subPath": name} for name in names
    ]


@contextlib.contextmanager
def mounted_server(registry, folders, scratch):
    """Runs the server on a registry that is mounted as in a pod; yields its address."""
    seen, port = scratch / "seen", free_port()
    seen.mkdir()
    for folder in folders:
        (registry / folder).mkdir(exist_ok=True)  # as the kubelet does
    options = f"--lane realtime --direct --port {port} --registry {seen}"
    server = f"exec {sys.executable} -m rlcar.cli serve {options} --set poll_s=0.1"
    script = ["unshare", "-m", "sh", "-c", MOUNTS, "sh"]
    environment = os.environ | {"PYTHONPATH": str(Path(K8S).parent)}
    process = subprocess.Popen([*script, registry, seen, server, *folders], env=environment)
    url = f"http://127.0.0.1:{port}"

    def is_ready():
        assert process.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
        return False

    try:
        wait_until(is_ready)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.skipif(not may_mount(), reason="only root may mount")
def test_a_server_with_these_mounts_promotes_a_candidate(tmp_path):
    registry = tmp_path / "models"
    publish(registry, seed=1)
    publish(registry, seed=2, alias=None)
    operator = Operator(Registry(registry), "champion", "me")
    folders = [mount["subPath"] for mount in mounts_of(tmp_path, "serve")[1:]]
    with mounted_server(registry, folders, tmp_path) as url:
        tree = {"strategy": {"canary": {"steps": [{"setWeight": 100}, {"pause": {}}]}}}
        tree["rollback"] = {"enabled": False}
        state = operator.start(2, parse_specification(tree), try_model)

        def has_answered():
            body = {"observation": [0.5] * 6, "session": "car"}
            httpx.post(f"{url}/v1/act", json=body, timeout=20)
            return operator.counts(state).candidate.answers >= 20

        wait_until(has_answered)
        operator.resume()
        wait_until(lambda: operator.read().state.phase == "Healthy")
    assert Registry(registry).aliases()["champion"] == 2
