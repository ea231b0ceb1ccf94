"""One embedded Ray for each module that asks for it, away from the user's home and sessions."""

import tempfile

import pytest
import ray

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
}


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
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="module")
def embedded_ray(ray_environment):
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=3,
        log_to_driver=False,
        _temp_dir=ray_environment["RAY_TMPDIR"],
    )
    yield
    ray.shutdown()
