"""The cluster of these tests: the one that KUBECONFIG names, with kubectl."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kubernetes.kubectl import (
    K8S,
    Namespace,
    own_namespace,
    render,
)


@pytest.fixture(scope="session")
def cluster() -> None:
    """Skips without a cluster; fails if the cluster that KUBECONFIG names does not answer."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a cluster in KUBECONFIG")
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    done = subprocess.run(["kubectl", "version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def space(cluster: None) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    with own_namespace() as space:
        yield space


@pytest.fixture(scope="module")
def platform(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """A namespace with the accounts, quotas and volumes that every workload needs."""
    with own_namespace() as space:
        folder: Path = tmp_path_factory.mktemp("platform")
        objects = render(K8S / "base" / "platform", space.name, folder)
        space.remember(objects)
        space.apply(objects)
        yield space
