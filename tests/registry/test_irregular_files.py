"""Whatever stands in place of a file of the registry: every verb ends in time, with a sentence."""

import shutil
from pathlib import Path

import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from tests.registry.irregular import KINDS, in_time, open_to_all, replace_with, without_privileges
from tests.serve.served import publish

FILES = ("policy.safetensors", "report.json", "manifest.json", "alias")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Two versions; the champion was the first, and is the second."""
    folder = tmp_path_factory.mktemp("sound") / "models"
    publish(folder)
    registry = Registry(folder)
    model = registry.open(1)
    registry.add(model.arrays, model.version.metadata, {"some": "report"})
    registry.promote(2)
    return folder


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=FILES)
def broken(sound, kind, request):
    """A registry in which one file of the champion, or the alias's last move, is something else."""
    with open_to_all() as root:
        folder = root / "models"
        shutil.copytree(sound, folder)
        if request.param == "alias":
            path = max((folder / "aliases" / "champion").iterdir())
        else:
            path = folder / "versions" / "00000002" / request.param
        replace_with(kind, path)
        with without_privileges(root):
            yield Registry(folder), request.param


def _is_a_sentence(error: object) -> bool:
    return isinstance(error, RegistryError) and len(str(error).splitlines()) == 1


def test_every_verb_ends_in_time(broken):
    registry, file = broken
    folder = Path(registry.place)
    assert 1 in in_time(registry.numbers)
    listed = in_time(registry.versions)
    if file == "alias":
        assert [one.number for one in listed] == [2, 1]
        assert in_time(lambda: registry.open(2)).version.number == 2
    else:
        assert 1 in [one.number for one in listed]
        assert in_time(lambda: registry.open_good("champion"))[0].version.number == 1
        assert _is_a_sentence(in_time(lambda: registry.open(2)))
        assert _is_a_sentence(in_time(lambda: registry.promote(2)))
        assert _is_a_sentence(in_time(lambda: registry.export(2, folder.parent / "x.safetensors")))
    copied = in_time(lambda: registry.backup(folder.parent / "backup"))
    assert 1 in copied.versions
    model = Registry(folder).open(1)
    assert in_time(lambda: registry.add(model.arrays, model.version.metadata)).number == 3


def test_a_server_starts_with_a_sound_version(broken):
    registry, file = broken
    follower = AliasFollower(registry, "champion", ServerMetrics())
    in_time(follower.load_first)
    assert follower.current is not None
    # Whose last move is lost has its value before that one; whose moves cannot be read has none.
    assert follower.current.number == 1 or (file == "alias" and follower.current.number == 2)


def test_a_folder_that_may_not_be_listed_is_a_damaged_version(sound):
    with open_to_all() as root:
        folder = root / "models"
        shutil.copytree(sound, folder)
        (folder / "versions" / "00000002").chmod(0)
        with without_privileges(root):
            registry = Registry(folder)
            assert [one.number for one in registry.versions()] == [1]
            assert "Permission denied" in registry.damaged()[2]
            assert registry.open_good()[0].version.number == 1
            model = registry.open(1)
            assert registry.add(model.arrays, model.version.metadata).number == 3


def test_a_manifest_gives_the_size_that_is_checked_before_a_file_is_read(sound, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(sound, folder)
    policy = folder / "versions" / "00000002" / "policy.safetensors"
    size = policy.stat().st_size
    with policy.open("ab") as file:
        file.truncate(size + 1)
    with pytest.raises(RegistryError, match=f"{size + 1} bytes, more than the {size} allowed"):
        Registry(folder).open(2)


def test_a_link_to_the_whole_registry_is_followed(sound, tmp_path):
    (tmp_path / "models").symlink_to(sound)
    assert Registry(tmp_path / "models").open("champion").version.number == 2
