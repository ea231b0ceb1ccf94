"""`kill -9` at random moments: nothing is half written or lost, and a repetition ends.

The work runs in forks of one process, so that a moment is one of the work and not of the imports.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlcar.storage.backup import prune as prune_module
from rlcar.storage.backup.manifest import read_snapshots
from rlcar.storage.backup.prune import Rules, prune
from rlcar.storage.backup.store import open_store
from rlcar.storage.backup.verify import explain, verify
from tests.storage.backup.conftest import contents

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize(
        ("target", "moments"),
        [
            ("folder", 7),
            pytest.param("folder", 20, marks=pytest.mark.long),
            pytest.param("bucket", 20, marks=pytest.mark.long),
        ],
        indirect=["target"],
    ),
]
# Reads lines "verb delay_s"; forks, kills the fork after the delay, and prints its exit status.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import pyarrow.fs
from rlcar.storage.backup import prune
from rlcar.storage.backup.create import create_snapshot
from rlcar.storage.backup.restore import Selection, restore
from rlcar.storage.backup.store import open_store
target, folder = sys.argv[1], Path(sys.argv[2])
folders = {part: folder / part for part in ("runs", "models", "data", "sweeps")}
prune.UNUSED_STAYS_S = -1.0
acts = {
    "backup": lambda store: create_snapshot(store, folders),
    "restore": lambda store: restore(store, "1", Selection(folders, may_overwrite=True)),
    "prune": lambda store: prune.prune(store, prune.Rules(-1, 90, 0)),
}
for line in sys.stdin:
    verb, delay_s = line.split()
    child = os.fork()
    if not child:
        status = 1
        try:
            acts[verb](open_store(target))
            status = 0
        finally:
            os._exit(status)
    time.sleep(float(delay_s))
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Killer:
    """Runs a verb for a while."""

    def __init__(self, target: str, folder: Path):
        command = [sys.executable, "-c", PROGRAM, target, str(folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, verb: str, delay_s: float) -> bool:
        """Returns whether the verb had ended before it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{verb} {delay_s}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, 9), status
        return status == 0

    def duration_s(self, verb: str) -> float:
        """Lets a verb end; returns roughly how long it took."""
        delay_s = 0.05
        while not self.run(verb, delay_s):
            delay_s *= 1.5
        return delay_s

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def killer(site, target):
    killer = Killer(target, site.root)
    yield killer
    killer.end()


def random_moments(duration_s: float, moments: int):
    """Yields moments of the work, some of them in its last tenth, where it publishes."""
    rng = random.Random(7)
    for number in range(moments):
        low = 0.9 if number % 3 == 0 else 0.0
        yield rng.uniform(low, 1.1) * duration_s


def add_files(site, number: int, files: int = 20) -> None:
    folder = site.root / "data" / f"part-{number}"
    folder.mkdir()
    for name in range(files):
        (folder / f"{name}.bin").write_bytes(os.urandom(20_000))


def test_a_backup_that_is_killed_leaves_only_whole_snapshots(site, target, killer, moments):
    add_files(site, 0)
    duration_s = killer.duration_s("backup")
    store = open_store(target)
    for number, moment_s in enumerate(random_moments(duration_s, moments), 1):
        add_files(site, number)
        killer.run("backup", moment_s)
        assert explain(verify(store), store) == ""
    before = contents(site.root)
    site.back_up(target)
    assert store.list("leases") == {}
    shutil.rmtree(site.root)
    site.restore(target)
    assert contents(site.root) == before


def test_a_restoration_that_is_killed_leaves_each_item_whole_or_as_it_was(
    site, target, killer, moments
):
    for number in range(4):
        add_files(site, number, files=6)
    killer.duration_s("backup")
    wanted = contents(site.root)
    duration_s = killer.duration_s("restore")
    for moment_s in random_moments(duration_s, moments):
        (site.root / "data" / "part-1" / "1.bin").write_bytes(b"changed")
        changed = contents(site.root / "data" / "part-1")
        shutil.rmtree(site.root / "data" / "part-2", ignore_errors=True)
        killer.run("restore", moment_s)
        part_1 = contents(site.root / "data" / "part-1")
        is_replaced = not (site.root / "data" / "part-1").exists()  # kept beside it meanwhile
        assert is_replaced or part_1 in (changed, inside(wanted, "data/part-1"))
        part_2 = contents(site.root / "data" / "part-2")
        assert part_2 in ({}, inside(wanted, "data/part-2"))
        site.restore(target, "1", may_overwrite=True)
        assert contents(site.root) == wanted


def inside(found, folder: str):
    return {
        path.removeprefix(f"{folder}/"): value
        for path, value in found.items()
        if path.startswith(f"{folder}/")
    }


def test_a_removal_that_is_killed_loses_nothing_that_is_kept(
    site, target, killer, moments, monkeypatch
):
    monkeypatch.setattr(prune_module, "UNUSED_STAYS_S", -1.0)
    store = open_store(target)
    duration_s = 0.0
    for number, moment_s in enumerate([None, *random_moments(1.0, moments)]):
        add_files(site, number)
        site.back_up(target)
        shutil.rmtree(site.root / "data" / f"part-{number}")
        site.back_up(target)
        if moment_s is None:
            duration_s = killer.duration_s("prune")
        else:
            killer.run("prune", moment_s * duration_s)
        assert explain(verify(store), store) == ""
    # An age of 0 days would also keep what was made in the same second as the newest snapshot.
    prune(store, Rules(-1, 90, 0))
    left = read_snapshots(store)[0]
    assert [one.parts for one in left[:-1]] == [["models"]] * (len(left) - 1)
    assert left[-1].parts == ["runs", "models", "data"]
    needed = {file.sha256 for one in left for file in one.files}
    assert {name.rpartition("/")[2] for name in store.list("blobs")} == needed
