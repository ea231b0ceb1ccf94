"""What killed publications leave: it is removed when it is old, and takes no number away."""

import os
import time
from pathlib import Path

import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from rlcar.registry.leftovers import LEFT_AFTER_S


def _file(path: Path, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))
    return path


def test_old_partial_files_are_removed_and_those_of_a_living_publisher_stay(registry, run):
    registry.publish(run)
    registry.promote(1)
    folder, old_s, new_s = Path(registry.place), LEFT_AFTER_S + 60.0, LEFT_AFTER_S - 600.0
    old = [
        _file(folder / "versions" / "00000002" / ".writing-0123", old_s),
        _file(folder / "versions" / "00000003" / "policy.safetensors", old_s),
        _file(folder / "versions" / "00000001" / ".writing-4567", old_s),
        _file(folder / "aliases" / "champion" / ".writing-89ab", old_s),
    ]
    new = [
        _file(folder / "versions" / "00000004" / ".writing-0123", new_s),
        _file(folder / "versions" / "00000005" / "policy.safetensors", new_s),
        _file(folder / "aliases" / "champion" / ".writing-cdef", new_s),
    ]
    # However old a complete version is, its files stay.
    for path in (folder / "versions" / "00000001").iterdir():
        if not path.name.startswith("."):
            os.utime(path, (1.0, 1.0))
    assert registry.publish(run).number == 6
    assert not any(path.exists() for path in old[:3])
    assert all(path.exists() for path in new)
    registry.open(1)
    registry.promote(6)
    registry.retain(days=1000.0)
    assert not old[3].exists()


def test_a_host_whose_clock_is_years_ahead_removes_nothing_that_is_new(registry, run):
    """Ages are differences between times of the store's own clock."""
    registry.publish(run)
    years_s = 10 * 365 * 86_400.0
    folder = Path(registry.place) / "versions"
    half = _file(folder / "00000002" / "policy.safetensors", years_s)
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - years_s,) * 2)
    registry.retain(days=0.0, newest=2)
    assert half.exists()


def test_a_time_in_the_future_makes_nothing_old(registry, run):
    registry.publish(run)
    folder = Path(registry.place) / "versions"
    half = _file(folder / "00000002" / "policy.safetensors", 60.0)
    _file(folder / "00000003" / "policy.safetensors", -10 * LEFT_AFTER_S)
    registry.publish(run)
    assert half.exists()


@pytest.mark.parametrize("inside", [None, "policy.safetensors", "manifest.json", "deleted.txt"])
def test_a_stray_folder_does_not_take_the_numbers_below_it(registry, run, inside):
    registry.publish(run)
    stray = Path(registry.place) / "versions" / "99999999"
    stray.mkdir()
    if inside is not None:
        (stray / inside).write_bytes(b"{}")
    assert registry.publish(run).number == 2
    assert registry.publish(run).number == 3


def test_a_number_of_a_deleted_or_damaged_version_is_not_given_again(registry, run):
    for _ in range(3):
        registry.publish(run)
    registry.delete(3)
    manifest = Path(registry.place) / "versions" / "00000002" / "manifest.json"
    manifest.write_bytes(b"rotten")
    assert registry.publish(run).number == 4


def test_many_killed_publications_do_not_stop_the_next(registry, run):
    for number in range(1, 301):
        (Path(registry.place) / "versions" / f"{number:08d}").mkdir(parents=True)
    assert registry.publish(run).number == 301


@pytest.mark.parametrize("source", ["absent", "empty", "stray"])
def test_there_is_nothing_to_restore_from_a_place_that_holds_nothing(registry, tmp_path, source):
    if source != "absent":
        (tmp_path / source).mkdir()
    if source == "stray":
        (tmp_path / source / "versions" / "00000001").mkdir(parents=True)
    with pytest.raises(RegistryError, match=f"nothing to copy: .*{source} holds no version"):
        registry.restore(tmp_path / source)
    with pytest.raises(RegistryError, match="nothing to copy"):
        Registry(tmp_path / source).backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
