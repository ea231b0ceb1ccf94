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
