"""Folders to back up, and a backup in a folder or in a bucket."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from rlcar.storage import checkpoint
from rlcar.storage.backup.create import create_snapshot
from rlcar.storage.backup.restore import Selection, restore
from rlcar.storage.backup.store import open_store
from tests.support.object_store import make_bucket, object_store


def save_at(folder: Path, env_steps: int, needs=(), value: float = 0.0) -> checkpoint.Save:
    meta = {"train_seconds": 1.0, "train_steps": env_steps, "seed": 0, "needs": list(needs)}
    state = {"x": np.full(env_steps, value, np.float32)}
    return checkpoint.save(folder, env_steps, state, config_json="{}", meta=meta)


def contents(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Returns the SHA-256, mode and time of every file, and the mode of every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        time_ns = status.st_mtime_ns if path.is_file() else 0
        found[str(path.relative_to(folder))] = digest, status.st_mode, time_ns
    return found


class Site:
    """An installation with one run, a registry's files and a data set."""

    def __init__(self, root: Path):
        self.root = root
        run = root / "runs" / "first"
        save_at(run / "checkpoints", 100)
        save_at(run / "checkpoints", 200, needs=["step-000000100"])
        save_at(run / "best", 150)
        (run / "config.json").write_text("{}")
        (run / "run.json").write_text("{}")
        (run / "metrics.jsonl").write_text('{"env_steps": 1}\n')
        version = root / "models" / "versions" / "00000001"
        version.mkdir(parents=True)
        (version / "manifest.json").write_text("manifest")
        alias = root / "models" / "aliases" / "champion"
        alias.mkdir(parents=True)
        (alias / f"00000001-{'0' * 32}.json").write_text('{"version": 1}')
        data = root / "data" / "laps"
        (data / "empty").mkdir(parents=True)
        (data / "part-0.parquet").write_bytes(os.urandom(3000))
        os.chmod(data / "part-0.parquet", 0o640)

    @property
    def sources(self) -> dict[str, Path]:
        return {part: self.root / part for part in ("runs", "models", "data", "sweeps")}

    def back_up(self, target, **options):
        return create_snapshot(open_store(str(target)), self.sources, **options)

    def restore(self, target, wanted="latest", **options):
        selection = Selection(self.sources, **options)
        return restore(open_store(str(target)), wanted, selection)


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture(scope="module")
def s3_server():
    with object_store() as (_, address):
        yield address


@pytest.fixture
def bucket(s3_server, monkeypatch, request) -> str:
    """The address of an empty bucket."""
    name = f"backup{abs(hash(request.node.nodeid)) % 10**9}"
    return f"s3://{name}/site?{make_bucket(s3_server, name, monkeypatch)}"


@pytest.fixture(params=["folder", "bucket"])
def target(request, tmp_path) -> str:
    if request.param == "bucket":
        return request.getfixturevalue("bucket")
    return str(tmp_path / "backup")
