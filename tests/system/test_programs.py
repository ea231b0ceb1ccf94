"""Programs that end together with whoever started them."""

import os
import signal
import subprocess
import sys
import time

from rlcar.system.programs import ending_with_parent, program, started_by
from tests.support.waiting import wait_until

PARENT = """
import subprocess, sys, time
from rlcar.system.programs import ending_with_parent
child = subprocess.Popen(ending_with_parent([sys.executable, "-c", "import time; time.sleep(600)"]),
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not is_running(child))


def test_a_program_runs_as_if_started_directly():
    code = "import sys; print(sys.argv[1:]); sys.exit(3)"
    command = ending_with_parent([sys.executable, "-c", code, "a b", "--c"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("['a b', '--c']\n", 3)


def test_no_process_of_a_program_is_left():
    code = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True); print('started', flush=True); time.sleep(600)"
    )
    with program([sys.executable, "-c", code], stdout=subprocess.PIPE, within_s=5.0) as process:
        process.stdout.readline()
        time.sleep(0.1)
        assert len(started_by(process.mark)) == 2
    assert started_by(process.mark) == []
