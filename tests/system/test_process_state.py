"""Which process trains a run, and whether it still does."""

import json
import os
import subprocess
import sys

from rlcar.system import process_state


def test_a_process_that_lives_is_not_gone_and_one_that_ended_is(tmp_path):
    process_state.write(tmp_path, process_state.describe("running"))
    about = process_state.read(tmp_path)
    assert about["pid"] == os.getpid()
    assert not process_state.is_gone(about)
    program = "import sys; from pathlib import Path; from rlcar.system import process_state; "
    program += "process_state.write(Path(sys.argv[1]), process_state.describe('running'))"
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    assert process_state.is_gone(process_state.read(tmp_path))


def test_another_process_with_the_same_number_is_not_taken_for_it(tmp_path):
    process_state.write(tmp_path, process_state.describe("running"))
    about = process_state.read(tmp_path)
    assert process_state.is_gone(about | {"start_ticks": about["start_ticks"] - 1})


def test_nothing_is_known_of_another_machine(tmp_path):
    process_state.write(tmp_path, process_state.describe("running"))
    assert not process_state.is_gone(
        process_state.read(tmp_path) | {"host": "elsewhere", "pid": 2**22 + 1}
    )


def test_an_error_is_one_line(tmp_path):
    process_state.write(tmp_path, process_state.describe("failed", ValueError("two\nlines")))
    assert process_state.read(tmp_path)["error"] == "ValueError: two"


def test_a_torn_file_and_none_say_nothing(tmp_path):
    assert process_state.read(tmp_path) == {}
    for text in ("{", json.dumps([1])):
        (tmp_path / process_state.FILE).write_text(text)
        assert process_state.read(tmp_path) == {}
