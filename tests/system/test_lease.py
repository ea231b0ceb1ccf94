"""One process at a time works in a folder, whatever host it is on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rlcar.errors import UserError
from rlcar.rollout.compiled import Episodes
from rlcar.runs.run import Run, new_run_folder
from rlcar.storage import checkpoint
from rlcar.system import lease, process_state
from rlcar.system.lease import HeldError, hold
from tests.support.tiny_run import SHORT_TRAINING, make_tiny_config
from tests.support.waiting import wait_until

CONFIG = make_tiny_config()
HOLDER = """
import sys, time
from pathlib import Path
from rlcar.system.lease import HeldError, hold
folder, begin_s, hold_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
time.sleep(max(0.0, begin_s - time.time()))
try:
    with hold(folder):
        print("held", flush=True)
        time.sleep(hold_s)
except HeldError as error:
    print("refused", error, flush=True)
"""
CAN_UNSHARE = not subprocess.run(["unshare", "--uts", "true"], check=False).returncode
needs_unshare = pytest.mark.skipif(not CAN_UNSHARE, reason="may not make namespaces")


def start_holder(folder, hold_s=120.0, begin_s=0.0, host=None):
    """A process that holds a folder, on a host of another name if one is given."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(begin_s), str(hold_s)]
    if host is not None:
        script = f'hostname {host} && exec "$@"'
        command = ["unshare", "--uts", "sh", "-c", script, "sh", *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def held_by(folder, host=None):
    with start_holder(folder, host=host) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def elsewhere(folder, silent_s, **changes):
    """Leaves what a process of another host has written, so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    about = process_state.describe("running") | {"host": "elsewhere", "lease": 1, **changes}
    process_state.write(folder, about)
    then_s = time.time() - silent_s
    os.utime(folder / process_state.FILE, (then_s, then_s))


def test_of_many_processes_that_begin_at_once_one_gets_the_folder(tmp_path):
    begin_s = time.time() + 3.0
    processes = [start_holder(tmp_path / "one", 5.0, begin_s) for _ in range(6)]
    said = [process.communicate()[0] for process in processes]
    assert sum(text.startswith("held") for text in said) == 1, said
    assert sum("is not free: " in text for text in said) == 5, said


@needs_unshare
def test_a_process_on_another_host_keeps_its_folder_until_it_shows_no_sign_of_life(
    tmp_path, monkeypatch
):
    with held_by(tmp_path, host="beta") as process:
        with pytest.raises(HeldError, match=r"process \d+ of the host beta since ") as refusal:
            Run(tmp_path, CONFIG)
        assert "if that host is down, try again in" in str(refusal.value)
        assert not (tmp_path / "config.json").exists()
        process.kill()
        process.wait()
        # Nobody here can know that it is dead, before its lease expires.
        with pytest.raises(HeldError), hold(tmp_path):
            pass
    monkeypatch.setattr(lease, "EXPIRES_S", 1.0)
    with hold(tmp_path, wait_s=60.0):
        assert process_state.read(tmp_path)["host"] != "beta"


def test_a_process_of_this_host_loses_its_folder_the_moment_it_dies(tmp_path):
    with held_by(tmp_path) as process:
        with pytest.raises(HeldError, match=f"process {process.pid} of this machine since"):
            Run(tmp_path, CONFIG)
        process.kill()
        wait_until(lambda: process_state.is_gone(process_state.read(tmp_path)))
        with hold(tmp_path):
            pass


def test_a_process_that_dies_while_it_claims_a_folder_blocks_nobody(tmp_path):
    dying = (
        "import os, signal, sys; from pathlib import Path; from rlcar.system import lease\n"
        "lease.json.dumps = lambda content: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with lease.hold(Path(sys.argv[1])): pass"
    )
    done = subprocess.run([sys.executable, "-c", dying, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with hold(tmp_path):
        assert not [path for path in tmp_path.glob(".claim-*") if "-" in path.name[7:]]


@pytest.mark.parametrize(
    ("silent_s", "changes", "is_free"),
    [
        (lease.EXPIRES_S / 2, {}, False),
        (lease.EXPIRES_S + 30, {}, True),
        (lease.EXPIRES_S / 2, {"state": "ended"}, True),
    ],
)
def test_a_lease_elsewhere_counts_by_its_age(tmp_path, silent_s, changes, is_free):
    elsewhere(tmp_path, silent_s, **changes)
    with contextlib.nullcontext() if is_free else pytest.raises(HeldError), hold(tmp_path):
        pass


def test_a_container_of_the_same_host_name_and_boot_is_judged_as_another_host(tmp_path):
    """Its process numbers mean nothing here: number 1 always exists."""
    about = {
        "host": process_state.describe("running")["host"],
        "pid": 1,
        "pid_namespace": "pid:[7]",
    }
    elsewhere(tmp_path, 5.0, **about)
    with pytest.raises(HeldError), hold(tmp_path):
        pass
    elsewhere(tmp_path, lease.EXPIRES_S + 5.0, **about)
    with hold(tmp_path):
        pass


def test_a_holder_that_was_taken_for_dead_writes_nothing_more(tmp_path):
    episodes = Episodes(128, np.array([1.0]), np.array([30]), np.array([True]))
    with Run(tmp_path, CONFIG) as run:
        run.drove(episodes)
        run.log(128, 0)
        number = process_state.read(tmp_path)["lease"]
        elsewhere(tmp_path, 0.0, host="gamma", pid=4, lease=number + 1)
        written = (tmp_path / "metrics.jsonl").read_bytes()
        for write in (run.meta, run.saved, lambda: run.log(256, 1)):
            with pytest.raises(HeldError, match="was taken over by process 4 of the host gamma"):
                write()
    assert (tmp_path / "metrics.jsonl").read_bytes() == written
    assert process_state.read(tmp_path)["host"] == "gamma"


def test_a_stopped_process_that_wakes_up_finds_its_folder_taken(tmp_path, monkeypatch):
    with held_by(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        about = process_state.read(tmp_path)
        # As another host would see it.
        process_state.write(tmp_path, about | {"host": "elsewhere"})
        monkeypatch.setattr(lease, "EXPIRES_S", 0.5)
        with hold(tmp_path, wait_s=30.0) as ours:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(lease.RENEW_S + 1.0)
            ours.check()
            assert process_state.read(tmp_path)["pid"] == os.getpid()


def test_holding_twice_in_one_process_is_holding_once(tmp_path):
    with hold(tmp_path) as outer:
        with hold(tmp_path / "x" / "..") as inner:
            assert inner is outer
        assert process_state.read(tmp_path)["state"] == "running"
    assert process_state.read(tmp_path)["state"] == "ended"
    assert not list(tmp_path.glob(".*")), "nothing but the file is left"


def test_a_listener_that_blocks_delays_neither_the_renewals_nor_the_end(tmp_path, monkeypatch):
    """As printing does when nobody reads the pipe that standard output is."""
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    is_told, may_return = threading.Event(), threading.Event()

    def block(progress):
        is_told.set()
        may_return.wait(120.0)

    def renewed_ns():
        return (tmp_path / process_state.FILE).stat().st_mtime_ns

    try:
        with hold(tmp_path) as ours:
            ours.listen(block)
            assert is_told.wait(60.0)
            before_ns = renewed_ns()
            wait_until(lambda: renewed_ns() > before_ns)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 60.0
        assert process_state.read(tmp_path)["state"] == "ended"
    finally:
        may_return.set()


def test_what_never_began_leaves_the_end_of_the_former_process(tmp_path):
    with Run(tmp_path, CONFIG):
        pass
    before = (tmp_path / process_state.FILE).read_bytes()
    with pytest.raises(UserError), hold(tmp_path):
        raise UserError("a checkpoint of another size")
    assert (tmp_path / process_state.FILE).read_bytes() == before


def test_default_names_of_one_second_are_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, None, CONFIG), range(24)))
    assert len(set(folders)) == 24
    assert all(folder.is_dir() for folder in folders)


def test_a_named_folder_that_is_held_is_refused_before_it_is_a_run(tmp_path):
    with held_by(tmp_path / "mine"), pytest.raises(HeldError, match="or choose another --name"):
        new_run_folder(tmp_path, "mine", CONFIG)


# The tests above try the lease itself among processes and hosts.
@needs_unshare
@pytest.mark.slow
@pytest.mark.long
def test_two_trainings_of_one_name_on_two_hosts_are_one(tmp_path):
    """Both used to write into one folder and to end well; the first one's checkpoints were lost."""
    options = ["--name", "shared", "--set", "training.checkpoint_every_s=0.01"]
    train = [sys.executable, "-m", "rlcar.cli", *SHORT_TRAINING, *options]
    script = 'hostname "$0" && exec "$@"'
    processes = [
        subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", script, host, *train],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for host in ("alpha", "beta")
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], said
    assert "already holds a run" in said[codes.index(2)] or "is not free" in said[codes.index(2)]
    winner = ("alpha", "beta")[codes.index(0)]
    folder = tmp_path / "runs/shared"
    assert json.loads((folder / "process.json").read_text())["host"] == winner
    assert checkpoint.latest_sound(folder / "checkpoints").env_steps == 2048
