"""A backup holds everything, and a restored registry is the one that was lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry


@pytest.fixture
def full(registry, run) -> Registry:
    for _ in range(4):
        registry.publish(run)
    for number in (1, 2, 3):
        registry.promote(number)
    registry.rollback()
    registry.delete(4)
    return registry


def _files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_a_lost_registry_comes_back_whole(full, run, tmp_path):
    arrays = full.open(1).arrays
    assert full.backup(tmp_path / "backup").versions == [1, 2, 3]
    before = _files(Path(full.place))
    shutil.rmtree(full.place)
    restored = Registry(full.place)
    assert restored.restore(tmp_path / "backup").versions == [1, 2, 3]
    assert _files(Path(full.place)) == before
    assert restored.resolve("champion") == 2
    assert restored.rollback().number == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(restored.open(1).arrays[name], array)
    assert restored.publish(run).number == 5


def test_a_second_backup_brings_what_is_new(full, run, tmp_path):
    full.backup(tmp_path / "backup")
    assert full.backup(tmp_path / "backup").versions == []
    full.publish(run)
    full.promote(5)
    assert full.backup(tmp_path / "backup").versions == [5]
    assert Registry(tmp_path / "backup").resolve("champion") == 5


def test_a_restoration_that_was_broken_off_goes_on(full, tmp_path):
    full.backup(tmp_path / "backup")
    shutil.rmtree(full.place)
    half = Path(full.place) / "versions" / "00000002"
    half.mkdir(parents=True)
    (half / "policy.safetensors").write_bytes(b"half")
    assert Registry(full.place).restore(tmp_path / "backup").versions == [1, 2, 3]
    Registry(full.place).open(2)


def test_a_damaged_version_is_named_and_the_others_are_copied(full, tmp_path):
    path = Path(full.place) / "versions" / "00000002" / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    copied = full.backup(tmp_path / "backup")
    assert copied.versions == [1, 3]
    assert "version 2 is damaged" in copied.damaged[2]


def test_another_registry_is_not_mixed_in(full, run, tmp_path):
    other = Registry(tmp_path / "other")
    other.publish(run)
    before = _files(Path(other.place))
    with pytest.raises(RegistryError, match="version 1 of .* differs from that of"):
        full.backup(other.place)
    assert _files(Path(other.place)) == before
