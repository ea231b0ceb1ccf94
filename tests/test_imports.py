"""A plain import of our modules changes nothing but the modules that are loaded."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "support" / "import_effects.py"


def test_no_module_changes_the_process_when_it_is_imported():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *changes, count = done.stdout.splitlines()
    assert changes == []
    assert int(count.split()[1]) > 200


def test_a_command_and_a_simulator_start_without_libraries_that_only_some_of_them_use():
    """Each of these takes a quarter of the start of a process, and trainings start many."""
    program = (
        "import sys, rlcar.cli; print([n for n in ('tensorboardX', 'jax') if n in sys.modules]);"
        "import cluster.training.loop, cluster.training.simulator, cluster.training.learner_actor;"
        "print([name for name in ('matplotlib', 'tensorboardX') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["[]", "[]"], "")
