"""Signs of life, and what is judged by them."""

import os
import time

import pytest

from rlcar.runs.monitor import RunReader
from rlcar.runs.run import Run
from rlcar.system import heartbeat, process_state
from rlcar.system.heartbeat import FROZEN_AFTER_S, WORKING, SignOfLife, is_frozen, patience_s
from rlcar.system.lease import hold
from tests.support.tiny_run import make_tiny_config


def test_the_innermost_stage_counts_and_each_begins_and_ends_with_a_beat():
    assert heartbeat.sign_of_life().stage == WORKING
    with heartbeat.stage("saving"):
        with heartbeat.stage("compiling"):
            assert heartbeat.sign_of_life().stage == "compiling"
        assert heartbeat.sign_of_life().stage == "saving"
        before_s = time.monotonic()
    assert heartbeat.sign_of_life().stage == WORKING
    assert heartbeat.sign_of_life().silent_s <= time.monotonic() - before_s


def test_a_stage_that_nobody_declared_is_a_mistake():
    with pytest.raises(ValueError, match="there is no stage 'sleeping'"):
        heartbeat.stage("sleeping").__enter__()


def test_patience_depends_on_the_stage_and_on_the_observer():
    assert not is_frozen(SignOfLife(WORKING, FROZEN_AFTER_S - 1))
    assert is_frozen(SignOfLife(WORKING, FROZEN_AFTER_S + 1))
    assert not is_frozen(SignOfLife("compiling", 10 * FROZEN_AFTER_S))
    assert is_frozen(SignOfLife(WORKING, 3.0), frozen_after_s=2.0)
    assert patience_s("a stage of a later version") == max(map(patience_s, heartbeat.STAGES))


@pytest.fixture
def running(tmp_path):
    """A run without rows, whose process says what a test wants it to say."""
    with Run(tmp_path, make_tiny_config()):
        pass

    def say(stage, silent_s, renewed_ago_s=0.0):
        about = process_state.describe("running")
        process_state.write(tmp_path, about | {"lease": 9, "stage": stage, "silent_s": silent_s})
        then_s = time.time() - renewed_ago_s
        os.utime(tmp_path / process_state.FILE, (then_s, then_s))
        return RunReader(tmp_path).status()

    return say


@pytest.mark.parametrize(
    ("stage", "silent_s", "renewed_ago_s", "state"),
    [
        (WORKING, 1.0, 1.0, "starting"),
        (WORKING, FROZEN_AFTER_S + 5, 1.0, "frozen"),
        # Its thread is alive and its work is long: no reason to end it.
        ("evaluating", FROZEN_AFTER_S + 5, 1.0, "starting"),
        ("compiling", 10 * FROZEN_AFTER_S, 1.0, "starting"),
        ("compiling", 16 * FROZEN_AFTER_S, 1.0, "frozen"),
        # A process that is stopped does not even renew its lease.
        ("compiling", 1.0, FROZEN_AFTER_S + 5, "frozen"),
    ],
)
def test_frozen_means_no_sign_of_life(running, stage, silent_s, renewed_ago_s, state):
    status = running(stage, silent_s, renewed_ago_s)
    assert status.state == state
    assert status.silent_s == pytest.approx(silent_s + renewed_ago_s, abs=5.0)


def test_a_reader_whose_clock_is_ahead_believes_the_changes_that_it_sees(tmp_path):
    with Run(tmp_path, make_tiny_config()):
        process = process_state.Observer(tmp_path)
        ahead_s = time.time() + 1000.0
        assert process.renewed_ago_s(ahead_s) == pytest.approx(1000.0, abs=60.0)
        os.utime(tmp_path / process_state.FILE, (1.0, 1.0))
        assert process.renewed_ago_s(ahead_s + 5.0) == 0.0
        assert process.renewed_ago_s(ahead_s + 8.0) == 3.0


def test_the_lease_tells_the_stage_and_the_silence_and_does_not_make_progress_itself(tmp_path):
    with hold(tmp_path) as lease, heartbeat.stage("evaluating"):
        time.sleep(0.3)
        lease._renew()
        about = process_state.read(tmp_path)
        assert about["stage"] == "evaluating"
        assert about["silent_s"] >= 0.3
        began_s = time.monotonic()
        heartbeat.beat()
        lease._renew()
        noted_s = process_state.read(tmp_path)["silent_s"]
        assert noted_s <= time.monotonic() - began_s + 0.1
