"""A file is complete or as it was, whatever happens to its writer."""

import os
import signal
import subprocess
import sys

import pytest

from rlcar.errors import RegistryError
from rlcar.system import durable


class WriterError(Exception):
    pass


@pytest.mark.parametrize("error", [WriterError, KeyboardInterrupt, OSError])
def test_after_an_error_the_file_is_as_it_was_and_nothing_lies_beside_it(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with durable.replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    durable.replace_text(path, "text")
    durable.replace_durably(path, b"bytes")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"bytes"


def test_writers_of_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with durable.replacing(path) as first, durable.replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ended last
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_durable_file_has_its_mode_from_the_start_and_is_synced_before_it_is_renamed(
    tmp_path, monkeypatch
):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: events.append(os.fstat(file)) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: events.append("rename") or replace(*paths))
    path = tmp_path / "file"
    durable.replace_durably(path, b"secret", 0o600)
    file, rename, folder = events
    assert (file.st_ino, file.st_mode & 0o777) == (path.stat().st_ino, 0o600)
    assert rename == "rename"
    assert folder.st_ino == tmp_path.stat().st_ino


KILLED = """
import os, pathlib, signal, sys
from rlcar.system import durable
with durable.replacing(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    others = [each.name for each in tmp_path.iterdir() if each != path]
    assert len(others) == 1
    assert others[0].startswith(durable.WRITING)


def test_an_error_of_writing_is_one_sentence_of_the_wanted_kind(tmp_path):
    path = tmp_path / "absent" / "file"
    with (
        pytest.raises(RegistryError, match=rf"^cannot write {path}: No such file or directory$"),
        durable.explaining_write_errors(path, RegistryError),
    ):
        durable.replace_text(path, "text")
