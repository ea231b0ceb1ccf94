"""The use of memory, files and threads by processes."""

import os
import subprocess
import sys
import threading

from rlcar.system.process_usage import folder_bytes, idle_cpu_s, measure, process_files


def test_files_and_threads_of_this_process_are_counted(tmp_path):
    before, over = measure([os.getpid()]), threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        during = measure([os.getpid()])
    over.set()
    thread.join()
    assert (during.files - before.files, during.threads - before.threads) == (2, 1)
    assert 10.0 < during.memory_mb < 100_000.0


def test_a_child_that_nobody_waits_for_is_a_zombie_and_nothing_else():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and is not reaped.
    usage = measure([child.pid])
    assert [pid for pid, _ in usage.zombies] == [child.pid]
    assert (usage.processes, usage.memory_mb) == (0, 0.0)
    child.wait()
    assert measure([child.pid]) == (0, 0.0, 0, 0, frozenset(), 0.0)


def test_cpu_time_is_that_of_a_process_and_of_the_children_that_it_waited_for():
    before_s, idle_before_s = measure([os.getpid()]).cpu_s, idle_cpu_s()
    program = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert 0.3 <= measure([os.getpid()]).cpu_s - before_s < 5.0
    assert idle_cpu_s() >= idle_before_s > 0.0


def test_this_process_is_among_all_processes():
    assert f"/proc/{os.getpid()}/stat" in map(str, process_files("stat"))


def test_a_folder_is_as_large_as_its_files(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one").write_bytes(bytes(1000))
    (tmp_path / "two").write_bytes(bytes(24))
    assert folder_bytes(tmp_path) == 1024
    assert folder_bytes(tmp_path / "nowhere") == 0
