"""A folder and a bucket keep the same promises."""

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from rlcar.registry.store import LocalStore, ObjectStore, Store, open_store
from tests.support.object_store import make_bucket, object_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server that speaks S3."""
    with object_store() as (_, address):
        yield address


@pytest.fixture
def bucket_url(endpoint, request, monkeypatch) -> str:
    name = f"models-{abs(hash(request.node.name))}"
    return f"s3://{name}/registry?{make_bucket(endpoint, name, monkeypatch)}"


@pytest.fixture(params=["folder", "bucket"])
def location(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "models")
    return request.getfixturevalue("bucket_url")


@pytest.fixture
def store(location) -> Store:
    return open_store(location)


def test_what_is_written_is_read_and_listed(store):
    assert store.names("versions") == []
    store.write("versions/1/a", b"one")
    store.write("versions/1/a", b"two")
    store.write("versions/10/b/c", b"")
    assert store.read("versions/1/a", 3) == b"two"
    assert store.read("versions/10/b/c", 0) == b""
    assert sorted(store.names("versions")) == ["1/a", "10/b/c"]
    assert store.names("versions/1") == ["a"]
    store.delete("versions/1/a")
    store.delete("versions/1/a")
    assert store.names("versions") == ["10/b/c"]
    with pytest.raises(FileNotFoundError):
        store.read("versions/1/a", 10)


def test_a_claim_is_granted_once(store):
    assert store.claim("versions/1")
    assert not store.claim("versions/1")
    assert store.claim("versions/2")


def test_many_that_claim_at_once_never_both_win(store):
    won: list[int] = []

    def claim(place: int) -> None:
        if store.claim(f"versions/{place}"):
            won.append(place)

    for round_ in range(5):
        threads = [threading.Thread(target=claim, args=(round_,)) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert len(won) == len(set(won))
    assert isinstance(store, ObjectStore) or len(won) == 5


def test_a_file_is_created_once(store):
    assert store.create("rollouts/champion/1", b"one")
    assert not store.create("rollouts/champion/1", b"two")
    assert store.read("rollouts/champion/1", 10) == b"one"


def test_writers_of_a_journal_agree_on_its_order(location):
    appended: list[tuple[int, int]] = []

    def write(writer: int) -> None:
        journal = Registry(location).rollouts("champion")
        for _ in range(6):
            entries = journal.read()
            entry = journal.append(len(entries), f"writer {writer}", {"seen": len(entries)})
            if entry is not None:
                appended.append((entry.number, writer))
            time.sleep(0.02 * random.random())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    entries = Registry(location).rollouts("champion").read()
    assert [(one.number, one.actor) for one in entries] == [
        (number, f"writer {writer}") for number, writer in sorted(appended)
    ]
    assert [one.content["seen"] for one in entries] == list(range(len(entries)))
    assert entries


def test_a_registry_does_the_same_in_both(location, run):
    registry = Registry(location)
    assert registry.versions() == []
    for _ in range(2):
        registry.publish(run)
    registry.promote(1)
    registry.promote(2)
    assert [one.number for one in registry.versions()] == [2, 1]
    assert registry.rollback().number == 1
    assert registry.open("champion").version.aliases == ("champion",)
    registry.delete(2)
    again = Registry(location)
    assert [one.number for one in again.versions()] == [1]
    assert again.publish(run).number == 3


def test_processes_that_publish_into_a_bucket_at_once_get_numbers_of_their_own(bucket_url, run):
    registry = Registry(bucket_url)
    registry.publish(run)
    program = (
        "import sys; from rlcar.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "arrays, metadata = registry.open(1).arrays, registry.version(1).metadata\n"
        "sys.stdin.readline()\n"
        "for _ in range(4): print(registry.add(arrays, metadata).number)"
    )
    command = [sys.executable, "-c", program, bucket_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, cwd=ROOT, **pipes) for _ in range(2)]
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    numbers = [int(line) for one in processes for line in one.communicate(timeout=90)[0].split()]
    assert [one.returncode for one in processes] == [0, 0]
    assert len(numbers) == len(set(numbers)) == 8
    assert sorted([1, *numbers], reverse=True) == [one.number for one in registry.versions()]
    for number in numbers:
        registry.open(number)


def test_a_bucket_that_is_not_there_is_named_without_its_secrets(bucket_url, run):
    there = bucket_url.replace("s3://models-", "s3://key:secret@absent-")
    with pytest.raises(RegistryError, match=r"cannot .* s3://absent-") as raised:
        Registry(there).publish(run)
    assert "secret" not in str(raised.value)
    with pytest.raises(RegistryError, match="cannot open the registry gopher://host/models"):
        Registry("gopher://user:secret@host/models")


def test_a_file_url_is_a_folder(tmp_path):
    folder = tmp_path / "with space"
    open_store(f"file://{tmp_path}/with%20space").write("a", b"1")
    assert (folder / "a").read_bytes() == b"1"
    with pytest.raises(RegistryError, match="empty"):
        open_store(" ")


def test_a_write_that_was_broken_off_leaves_nothing_to_see(tmp_path):
    store = LocalStore(tmp_path)
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / ".writing-0123").write_bytes(b"half")
    assert store.names("versions") == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "versions").write_bytes(b"")
    for act in (
        lambda store: store.write("versions/1/a", b""),
        lambda store: store.claim("versions/1"),
    ):
        with pytest.raises(RegistryError, match="cannot write"):
            act(LocalStore(tmp_path))
