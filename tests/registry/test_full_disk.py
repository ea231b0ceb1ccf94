"""A full disk and a name that is too long: one sentence, and nothing half-written is left."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from tests.support.small_disk import mounted_disk

LONG = "n" * 300  # file systems allow 255 bytes


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB, for root only."""
    with mounted_disk(tmp_path / "disk", size_kb=256) as disk:
        yield disk


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _error_of(write: Callable[[], object]) -> str:
    with pytest.raises(RegistryError) as raised:
        write()
    return str(raised.value)


@pytest.mark.parametrize("free_bytes", [0, 4096, 20_000])
def test_a_full_disk_leaves_nothing_half_written(small_disk, run, tmp_path, free_bytes):
    """The disk is full before the first file, within the policy, and within what follows it."""
    registry = Registry(small_disk / "models")
    registry.publish(run)
    registry.export(1, tmp_path / "one.safetensors")
    before = _files(small_disk)
    status = os.statvfs(small_disk)
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(status.f_bavail * status.f_frsize - free_bytes))
    for write in (
        lambda: registry.publish(run),
        lambda: registry.import_(tmp_path / "one.safetensors"),
        lambda: registry.export(1, small_disk / "copy.safetensors"),
        lambda: registry.backup(small_disk / "backup"),
    ):
        said = _error_of(write)
        assert "No space left on device" in said
        assert len(said.splitlines()) == 1
        left = [name for name in _files(small_disk) if (small_disk / name).is_file()]
        assert set(left) <= {*before, "ballast"}
    registry.open(1)


def test_a_full_disk_takes_no_number(small_disk, run):
    registry = Registry(small_disk / "models")
    registry.publish(run)
    status = os.statvfs(small_disk)
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(status.f_bavail * status.f_frsize - 8192))
    with pytest.raises(RegistryError, match="No space left on device"):
        registry.publish(run)
    (small_disk / "ballast").unlink()
    assert registry.publish(run).number == 2


def test_a_name_that_is_too_long_is_one_sentence(run, tmp_path):
    registry = Registry(tmp_path / "models")
    registry.publish(run)
    for act in (
        lambda: Registry(tmp_path / LONG).versions(),
        lambda: Registry(tmp_path / LONG).publish(run),
        lambda: registry.export(1, tmp_path / f"{LONG}.safetensors"),
        lambda: registry.import_(tmp_path / f"{LONG}.safetensors"),
        lambda: registry.backup(tmp_path / LONG),
        lambda: registry.restore(tmp_path / LONG),
    ):
        with pytest.raises(RegistryError, match="File name too long") as raised:
            act()
        assert len(str(raised.value).splitlines()) == 1
