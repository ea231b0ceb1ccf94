"""The event loop's half of a recording: who is chosen, and what happens to a full queue."""

import contextlib
import os
import signal
import time

import numpy as np
import pytest

from rlcar.system.process_usage import process_files
from serve.api.schema import CheckedRequest, ObservationBatch
from serve.recording import process
from serve.recording.folder import NOT_WRITTEN, Options
from serve.recording.messages import REPORTS
from serve.recording.recorder import CLIENT_SHARE, QUEUE_FULL, Answered, Driver, Recorder, is_chosen
from serve.settings import make_settings
from tests.support.waiting import wait_until

DRIVER = Driver(1, {}, 6, 2)
ANSWER = Answered(1, "model", np.zeros((1, 2), np.float32))


def _request(step=None, is_first=False):
    batch = ObservationBatch(np.zeros((1, 6), np.float32), np.array([is_first]))
    return CheckedRequest(batch, True, "a", step, None, None)


def _processes_of(folder):
    """Returns the processes that record into a folder."""
    found = []
    for path in process_files("cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"serve.recording.process" in words and str(folder).encode() in words:
                found.append(int(path.parent.name))
    return found


def test_the_share_of_chosen_sessions_is_the_one_that_was_asked_for():
    names = [f"car-{number}" for number in range(20_000)]
    chosen = {name for name in names if is_chosen(name, 0.1)}
    assert len(chosen) / len(names) == pytest.approx(0.1, abs=0.01)
    assert chosen <= {name for name in names if is_chosen(name, 0.2)}
    assert all(is_chosen(name, 1.0) for name in names)
    # The choice is the same in every process, and after every upgrade.
    assert [number for number in range(40) if is_chosen(f"car-{number}", 0.1)] == CHOSEN


CHOSEN = [9, 10, 16, 24]


def test_a_full_queue_loses_steps_and_delays_nothing(tmp_path):
    recorder = Recorder(make_settings(record=tmp_path), most_steps_waiting=3)  # not started
    sessions = [recorder.begin(f"client-{number}", "a") for number in range(5)]
    for session in sessions:
        recorder.note(session, _request(), DRIVER, ANSWER)
    assert recorder.metrics.lost_steps == {QUEUE_FULL: 2}
    # The gap is seen, even after the queue has room again.
    assert [session.sequence for session in sessions] == [0] * 5


def test_a_client_that_sends_too_much_leaves_room_for_the_others(tmp_path):
    recorder = Recorder(make_settings(record=tmp_path), most_steps_waiting=1000)  # not started
    flood = [recorder.begin("flood", f"session-{number}") for number in range(10)]
    for step in range(2000):
        recorder.note(flood[step % 10], _request(), DRIVER, ANSWER)
    assert recorder.metrics.lost_steps == {CLIENT_SHARE: 1500}
    own = recorder.begin("me", "car")
    for _ in range(200):
        recorder.note(own, _request(), DRIVER, ANSWER)
    assert recorder.metrics.lost_steps == {CLIENT_SHARE: 1500}
    recorder._take(1000)
    for _ in range(500):
        recorder.note(own, _request(), DRIVER, ANSWER)
    assert recorder.metrics.lost_steps == {CLIENT_SHARE: 1500}


def test_the_end_does_not_wait_long_for_a_process_that_hangs(tmp_path):
    recorder = Recorder(make_settings(record=tmp_path), close_s=1.0)
    recorder.start()
    wait_until(lambda: _processes_of(tmp_path))
    (pid,) = _processes_of(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    try:
        session = recorder.begin("me", "a")
        for step in range(5000):  # more than a pipe holds
            recorder.note(session, _request(step), DRIVER, ANSWER)
        began_s = time.monotonic()
        recorder.close()
        assert time.monotonic() - began_s < 2.0
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_repeated_request_is_no_step(tmp_path):
    recorder = Recorder(make_settings(record=tmp_path))
    session = recorder.begin("me", "a")
    for step, is_first in ((1, True), (2, False), (2, False), (1, False), (1, True)):
        recorder.note(session, _request(step, is_first), DRIVER, ANSWER)
    assert session.sequence == 2


def test_equal_losses_are_reported_each_time(tmp_path, capfd):
    options = Options(str(tmp_path), None, "champion", 1.0, 1_000_000, 1.0, 60.0)
    recording = process.Recording(options)
    last = process._say(recording, None)
    for lost in (5, 5, 0, 0):
        recording._lost.update({NOT_WRITTEN: lost} if lost else {})
        last = process._say(recording, last)
    reports = [REPORTS.decode(line) for line in capfd.readouterr().out.splitlines()]
    assert [sum(one.lost_steps.values()) for one in reports] == [0, 5, 5]
