"""Processes of jobs: only those that really belong to a job are ended."""

import signal
import subprocess

from rlcar.campaigns.processes import JobProcess
from rlcar.system import process_state
from tests.support.waiting import wait_until


def test_a_process_that_was_given_the_number_of_one_that_ended_is_left_alone():
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        identity = process_state.identity(other.pid)
        earlier = JobProcess({**identity, "start_ticks": identity["start_ticks"] - 100})
        assert JobProcess.adopt(earlier.identity) is None
        assert earlier.is_over()
        earlier.terminate()
        earlier.kill()
        assert other.poll() is None
        JobProcess(identity).kill()
        assert other.wait(10) == -signal.SIGKILL


def test_what_a_process_has_started_ends_with_it(tmp_path):
    program = ["sh", "-c", 'sleep 600 & echo $! > "$1"; wait', "sh", str(tmp_path / "child")]
    seen = []
    process = JobProcess.start(program, tmp_path / "log", {}, seen.append)
    assert seen == [process.identity]
    path = tmp_path / "child"
    wait_until(lambda: path.exists() and path.read_text(), 20.0)
    child = process_state.identity(int(path.read_text()))
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    wait_until(lambda: process_state.is_gone(child), 20.0)
