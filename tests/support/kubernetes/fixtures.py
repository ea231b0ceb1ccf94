"""A cluster for the tests: our fake API server, or the one of KUBECONFIG.

With RLCAR_KUBERNETES_TESTS=1, the tests with the marker `kubernetes_client` use the cluster that
KUBECONFIG names. If its pods are simulated, RLCAR_KUBERNETES_LOGS names the folder of their logs.
"""

import base64
import os
from pathlib import Path

import pytest
import yaml

from tests.support.kubernetes.certificates import Authority
from tests.support.kubernetes.cluster import TestedCluster, log_folder_writer
from tests.support.kubernetes.kuberay import KubeRay
from tests.support.kubernetes.link import Link
from tests.support.kubernetes.rights import ADMIN
from tests.support.kubernetes.server import FakeKubernetes

IS_REAL = os.environ.get("RLCAR_KUBERNETES_TESTS") == "1"


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def server_certificate(authority):
    return authority.issue("server")


@pytest.fixture
def fake_server(authority, server_certificate):
    with FakeKubernetes(server_certificate, authority.certificate) as server:
        yield server


@pytest.fixture
def fake_kubeconfig(fake_server, authority, tmp_path):
    """A kubeconfig of the administrator of the fake server."""
    data = base64.b64encode(authority.certificate.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "fake",
                "cluster": {"server": fake_server.url, "certificate-authority-data": data},
            }
        ],
        "users": [{"name": "admin", "user": {"token": fake_server.add_token(ADMIN)}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "admin"}}],
        "current-context": "fake",
    }
    path = tmp_path / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def fake(request):
    """The fake server, for what a test cannot make a real one do."""
    if IS_REAL:
        pytest.skip("needs the fake API server")
    return request.getfixturevalue("fake_server")


@pytest.fixture
def kube(request, tmp_path):
    """A namespace on the cluster that the tests use, in which jobs run."""
    if IS_REAL:
        folder = os.environ.get("RLCAR_KUBERNETES_LOGS")
        writer = log_folder_writer(folder) if folder else None
        found = TestedCluster(Path(os.environ["KUBECONFIG"]), tmp_path, writer)
        yield found
        found.close()
        return
    server = request.getfixturevalue("fake_server")
    kubeconfig = request.getfixturevalue("fake_kubeconfig")

    def write(namespace, pod, container, lines):
        server.logs.setdefault((namespace, pod, container), []).extend(lines)

    with KubeRay(server.store) as operator:
        found = TestedCluster(kubeconfig, tmp_path, write)
        found.pause_operator = operator.pause
        yield found


@pytest.fixture
def link(kube):
    """A connection to the cluster that a test can cut; `kube.kubeconfig` with its address."""
    config = yaml.safe_load(kube.kubeconfig.read_text())
    found = Link(config["clusters"][0]["cluster"]["server"])
    found.kubeconfig = kube.write_kubeconfig({}, "linked", found.url)
    yield found
    found.close()
