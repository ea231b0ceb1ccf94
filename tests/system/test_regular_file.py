"""Files of a shared folder: whatever is in place of one, no reader hangs or fills the memory."""

import os
import shutil

import pytest

from rlcar.config import load_config
from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.monitor import RunReader
from rlcar.storage import checkpoint
from rlcar.storage.arrays import map_arrays
from rlcar.storage.runs import Storage
from rlcar.system import process_state
from rlcar.system.regular_file import NotRegularError, open_regular, read_regular
from serve.guard.tokens import TokenStore
from serve.live.run_follower import RunFollower
from tests.registry.irregular import in_time, replace_with
from tests.support.untrained_run import untrained

KINDS = ("fifo", "folder", "device", "dangling link", "huge")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "huge"])
def test_only_a_regular_file_of_bounded_size_is_opened(tmp_path, kind):
    path = tmp_path / "a" / "b" / "c" / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(NotRegularError, match="5 bytes, more than the 4 allowed"):
        read_regular(path, 4)
    replace_with(kind, path)
    assert isinstance(in_time(lambda: read_regular(path)), NotRegularError)
    (tmp_path / "link").symlink_to(path)
    assert isinstance(in_time(lambda: read_regular(tmp_path / "link")), NotRegularError)


def test_links_are_followed_unless_they_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"1"
    with pytest.raises(NotRegularError, match="a symbolic link"):
        open_regular(tmp_path / "link", follow_links=False)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_a_file_that_is_replaced_after_the_look_is_refused_too(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    assert isinstance(in_time(lambda: read_regular(path)), NotRegularError)


def _copy(tmp_path):
    """A run four folders deep, as `replace_with` puts what a link leads to outside."""
    return shutil.copytree(untrained(), tmp_path / "runs" / "first")


FILES = ("config.json", "process.json", "metrics.jsonl", "report.json")
SAVE_FILES = ("meta.json", "DONE", "state.safetensors")


@pytest.mark.parametrize("name", [*FILES, *SAVE_FILES])
def test_whoever_reads_a_run_ends_in_time(tmp_path, kind, name):
    run = _copy(tmp_path)
    save = checkpoint.latest(run / "best") or checkpoint.latest(run / "checkpoints")
    assert save is not None
    path = save.path / name if name in SAVE_FILES else run / name
    if not path.exists():
        path.write_bytes(b"{}\n")
    replace_with(kind, path)

    readers = {
        "publish": lambda: Registry(tmp_path / "models").publish(run),
        "config": lambda: load_config(run / "config.json"),
        "metrics": lambda: read_metrics(run / "metrics.jsonl"),
        "process": lambda: process_state.read(run),
        "monitor": lambda: RunReader(run).status(),
        "follow": lambda: (RunFollower(run).read(), RunFollower(run).newest()),
        "damage": lambda: checkpoint.damage(save),
        "arrays": lambda: map_arrays(save.path / "state.safetensors"),
    }
    if kind != "huge":  # a push copies what it finds, however large
        readers["push"] = lambda: Storage(str(tmp_path / "storage")).push(run)
    for reader, read in readers.items():
        told = in_time(read)
        if isinstance(told, BaseException):
            assert isinstance(told, UserError | OSError | ValueError), (reader, told)


def test_a_token_file_that_is_something_else_locks_nobody_out(tmp_path, kind):
    path = tmp_path / "a" / "b" / "c" / "tokens.json"
    path.parent.mkdir(parents=True)
    secret = TokenStore(path).create("car", ["act"], None)
    store = TokenStore(path)
    assert store.check(secret) is not None
    replace_with(kind, path)
    store._looked_s = -1.0  # as if a second had passed
    if kind == "dangling link":  # as good as deleted
        assert in_time(lambda: store.check(secret)) is None
    else:
        assert in_time(lambda: store.check(secret)).name == "car"
    assert isinstance(in_time(lambda: TokenStore(path).check(secret)), UserError | None)
