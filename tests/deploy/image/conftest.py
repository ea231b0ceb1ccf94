"""The image under test, built once for all tests of `make test-image`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.image import containers

TAG = "localhost/rlcar:test"


@pytest.fixture(scope="session")
def figure() -> Callable[[str, float], None]:
    """Returns a function that prints a figure, and keeps it in the file RLCAR_IMAGE_FIGURES."""

    def note(name: str, value: float) -> None:
        sys.stdout.write(f"figure {name}={value:.6g}\n")
        file = os.environ.get("RLCAR_IMAGE_FIGURES")
        if file:
            path = Path(file)
            known = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(known | {name: round(value, 1)}, indent=1) + "\n")

    return note


@pytest.fixture(scope="session")
def commit() -> str:
    """Returns the commit of this checkout, read before the image is built."""
    command = ["git", "-C", str(containers.ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def image(figure: Callable[[str, float], None], commit: str) -> str:
    """Builds the image from this checkout, and returns its name."""
    if containers.engine() is None:
        pytest.skip("neither podman nor docker works here")
    figure("image_build_s", containers.build(TAG))
    details = json.loads(containers.podman("image", "inspect", TAG))[0]
    figure("image_mb", details["Size"] / 1e6)
    return TAG


@pytest.fixture
def volumes(tmp_path: Path) -> containers.Volumes:
    return containers.Volumes(tmp_path / "volumes")
