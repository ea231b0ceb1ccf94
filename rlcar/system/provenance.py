"""Describes the running program for a run's records."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlcar import __version__


def provenance(seed: int | None) -> dict[str, Any]:
    """Returns the seed, commit (None if it is not known), versions and UTC time."""
    packages = {"jax": "jax", "haiku": "dm-haiku", "numpy": "numpy"}
    installed = {name: importlib.metadata.version(package) for name, package in packages.items()}
    return {
        "seed": seed,
        "commit": commit(),
        "versions": {"python": platform.python_version(), "rlcar": __version__, **installed},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def commit() -> str | None:
    """Asks git for the commit; an installed package knows it from RLCAR_COMMIT, as in our image."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get("RLCAR_COMMIT") or None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
