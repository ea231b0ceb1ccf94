"""One embedded Ray for all tests that ask for it, away from the user's home and sessions.

Also the fixtures of a Kubernetes cluster, for the tests of jobs and of `rlcar doctor`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.support import odd_environments
from tests.support.kubernetes.fixtures import (
    authority,
    fake,
    fake_kubeconfig,
    fake_server,
    kube,
    link,
    server_certificate,
)
from tests.support.ray_start import in_turn

__all__ = [
    "authority",
    "fake",
    "fake_kubeconfig",
    "fake_server",
    "kube",
    "link",
    "server_certificate",
]
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
}
RAY_WARNINGS = (
    # Ray announces a future default; nothing here asks for a GPU.
    "ignore:.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning",
    # Ray never waits for the processes that it has ended.
    "ignore:subprocess [0-9]+ is still running:ResourceWarning",
    # JAX warns of forks beside its threads, which earlier tests of this process may have started.
    # Ray forks when it starts, and its children exec at once.
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
)


@pytest.fixture(scope="session")
def ray_environment(tmp_path_factory):
    """What a process needs to start a Ray that meets no other one; also set in this process."""
    # Unix sockets allow 107 bytes of path: pytest's own folders are too deep.
    with (
        tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        environment = ENVIRONMENT | {
            "HOME": str(tmp_path_factory.mktemp("home")),
            "RAY_TMPDIR": folder,
            "JAX_PLATFORMS": "cpu",
            # Processes of a Ray that is running already get no other variables from a test.
            odd_environments.LEDGER: str(tmp_path_factory.mktemp("ledger")),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture
def start_rlcar(ray_environment, tmp_path):
    """Starts `rlcar` in an empty folder and a process group; what is left of it dies with the test.

    Returns the process and the file of what it says: a pipe would also wait for Ray's processes.
    """
    started = []

    def start(*arguments):
        output = tmp_path / f"output{len(started)}"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "rlcar.cli", *arguments],
                env=os.environ | ray_environment,
                cwd=tmp_path,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process, output

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pytest_collection_modifyitems(items):
    """Puts the tests with processes and a Ray of their own first: two Rays at once are slow.

    Warnings that Ray causes and nobody here can prevent are ignored in all tests that use it.
    """
    for item in items:
        if item.get_closest_marker("ray"):
            for warning in RAY_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))
    items.sort(key=lambda item: "embedded_ray" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def embedded_ray(ray_environment):
    with in_turn():
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=3,
            log_to_driver=False,
            _temp_dir=ray_environment["RAY_TMPDIR"],
        )
    yield
    ray.shutdown()


@pytest.fixture
def start_cluster(ray_environment):
    """Starts a head of its own with these arguments, and joins it; returns the cluster."""
    clusters = []

    def start(**head_node_args):
        head_node_args["include_dashboard"] = False
        with in_turn():
            clusters.append(Cluster(initialize_head=True, head_node_args=head_node_args))
        ray.init(address=clusters[0].address, log_to_driver=False)
        return clusters[0]

    yield start
    ray.shutdown()
    for cluster in clusters:
        cluster.shutdown()
