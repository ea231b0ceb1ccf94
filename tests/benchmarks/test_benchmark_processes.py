"""What a benchmark starts is ended whole: with its children, after errors, after Ctrl-C."""

import subprocess
import sys
import time

import pytest

from benchmarks.processes import program, started_by

# Like LitServe: a parent that ends at SIGTERM, a child that does not, a grandchild in a session of
# its own. Its last line says that all of them are there.
SERVER = """
import os, signal, subprocess, sys, time
kind = sys.argv[1]
if kind == "parent":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    subprocess.Popen([sys.executable, __file__, "child"])
elif kind == "child":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    subprocess.Popen([sys.executable, __file__, "grandchild"], start_new_session=True)
else:
    print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    return [sys.executable, str(tmp_path / "server.py"), "parent"]


def running(tmp_path):
    command = ["ps", "-wweo", "args"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if str(tmp_path / "server.py") in line]


class StopError(Exception):
    pass


@pytest.mark.parametrize("error", [None, StopError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_however_the_block_ends(command, tmp_path, error):
    try:
        with program(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            assert len(running(tmp_path)) == 3
            if error is not None:
                raise error
    except (StopError, KeyboardInterrupt, SystemExit):
        assert error is not None
    assert running(tmp_path) == []


def test_what_the_program_leaves_when_it_ends_by_itself_is_ended(command, tmp_path):
    with program(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.terminate()
        process.wait()
        assert len(running(tmp_path)) == 2
    assert running(tmp_path) == []


def test_a_program_that_does_not_end_is_killed(command, tmp_path):
    command[-1] = "child"
    started = time.monotonic()
    with program(command, stdout=subprocess.PIPE, text=True, within_s=0.2) as process:
        process.stdout.readline()
    assert time.monotonic() - started < 20.0
    assert running(tmp_path) == []


def test_others_are_left_alone(command):
    with subprocess.Popen(["sleep", "60"]) as bystander:
        with program(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
        assert bystander.poll() is None
        bystander.kill()
    assert started_by("no such mark") == []
