"""Object stores that are absent, refuse, hang or go away: one sentence, and nothing is lost."""

import shutil

import pytest

from rlcar.errors import StorageError
from rlcar.storage import location
from rlcar.storage.backup import upload
from rlcar.storage.backup.manifest import snapshot_names
from rlcar.storage.backup.store import open_store
from tests.registry.hanging_store import ENVIRONMENT, hanging_store
from tests.storage.backup.conftest import contents
from tests.support.object_store import requiring_signatures


def error_of(act) -> str:
    with pytest.raises(StorageError) as raised:
        act()
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_a_missing_bucket_is_one_sentence(site, bucket):
    name = bucket.partition("//")[2].partition("/")[0]
    target = bucket.replace(name, "nosuch")
    for act in (site.back_up, site.restore):
        assert "create the bucket 'nosuch' first" in error_of(lambda: act(target))  # noqa: B023


def test_wrong_credentials_are_one_sentence(site, bucket, s3_server, monkeypatch):
    """The server asks for a signature from now on."""

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with requiring_signatures(s3_server):
        said = error_of(lambda: site.back_up(bucket))
        assert "give credentials that may write there, as AWS_ACCESS_KEY_ID" in said
        assert "hidden" not in said


def test_a_server_that_is_not_there_is_one_sentence(site, bucket, s3_server):
    target = bucket.replace(s3_server, "127.0.0.1:1")
    assert "is the address right, and the network up" in error_of(lambda: site.back_up(target))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "location is empty"),
        ("s3://", "no bucket"),
        ("s3://[secret/x", "is not an address: Invalid IPv6 URL"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("gopher://user:secret@host/x", "cannot open the backup gopher://host/x"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(site, address, reason):
    said = error_of(lambda: site.back_up(address))
    assert reason in said
    assert "secret" not in said


def test_a_network_that_is_lost_in_the_middle_is_one_sentence_and_a_repetition_continues(
    site, monkeypatch
):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(location, "_REQUEST_S", 2.0)
    monkeypatch.setattr(location, "_ATTEMPTS", 1)
    (site.root / "data" / "big").write_bytes(bytes(range(256)) * 40_000)
    with hanging_store() as server:
        counts, put = upload.Counts(), upload.Uploader._put

        def put_and_hang(self, file, size):
            if counts.uploaded_blobs >= 5:
                server.hang()
            return put(self, file, size)

        monkeypatch.setattr(upload.Uploader, "_put", put_and_hang)
        said = error_of(lambda: site.back_up(server.url, counts=counts))
        assert "cannot reach the storage s3://models/registry" in said
        assert "is the address right, and the network up" in said
        server.go_on()
        monkeypatch.undo()
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        store = open_store(server.url)
        assert snapshot_names(store) == []
        for name in store.list("leases"):  # it could not be given back
            store.delete(f"leases/{name}")
        created = site.back_up(server.url)
        assert created.snapshot.uploaded_blobs < len({f.sha256 for f in created.snapshot.files})
        before = contents(site.root)
        shutil.rmtree(site.root)
        site.restore(server.url)
        assert contents(site.root) == before
