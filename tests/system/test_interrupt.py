"""Ctrl-C and SIGTERM ask; a second Ctrl-C insists."""

import os
import signal
import threading

import pytest

from rlcar.system.interrupt import StopRequest, exiting_at_sigterm


def _handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_nobody_has_asked_at_first():
    with StopRequest() as should_stop:
        assert not should_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_and_interrupts_nothing(number):
    with StopRequest() as should_stop:
        signal.raise_signal(number)
        assert should_stop
    assert should_stop


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequest():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_only_asks_again():
    with StopRequest() as should_stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert should_stop


def test_the_former_handlers_are_back_afterwards_even_after_an_error():
    before = _handlers()
    try:
        with StopRequest():
            assert _handlers() != before
            raise RuntimeError
    except RuntimeError:
        assert _handlers() == before


def test_another_thread_may_ask_but_sets_no_handlers():
    before, inside = _handlers(), []

    def loop():
        with StopRequest() as should_stop:
            inside.extend([bool(should_stop), _handlers()])

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert inside == [False, before]


def test_who_asks_is_answered_at_once_and_once(capfd):
    with StopRequest("stopping soon") as should_stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert should_stop
    assert capfd.readouterr().err == "\nstopping soon\n"


def test_sigterm_can_end_a_block_with_its_finally_clauses():
    before, ended = _handlers(), []

    def work():
        with exiting_at_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                ended.append(True)

    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 143
    assert ended == [True]
    assert _handlers() == before
