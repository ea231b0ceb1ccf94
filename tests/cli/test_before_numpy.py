"""The servers' BLAS has one thread: NumPy reads how many only when it is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Notes what the environment says at the moment when NumPy is looked for.
PROGRAM = """
import os, runpy, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("NumPy sees", os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)

sys.meta_path.insert(0, Watcher())
sys.argv = ["rlcar", *sys.argv[2:]] if sys.argv[1] == "rlcar" else ["-m", *sys.argv[2:]]
if sys.argv[0] == "rlcar":
    from rlcar.__main__ import main
    main()
else:
    runpy.run_module("rlcar.cli", run_name="__main__", alter_sys=True)
"""


def _seen(tmp_path, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout.splitlines()[:1]


@pytest.mark.parametrize(
    ("entry", "verb"),
    [("rlcar", ("serve", "--lane", "realtime")), ("rlcar.cli", ("watch", "nowhere"))],
    ids=["serve", "watch"],
)
def test_a_server_gives_each_matrix_one_thread(tmp_path, entry, verb):
    assert _seen(tmp_path, entry, *verb) == ["NumPy sees 1"]


def test_what_the_user_has_set_stays(tmp_path):
    seen = _seen(tmp_path, "rlcar", "serve", "--lane", "realtime", OPENBLAS_NUM_THREADS="2")
    assert seen == ["NumPy sees 2"]


def test_a_training_keeps_all_threads(tmp_path):
    assert _seen(tmp_path, "rlcar", "evaluate", "nowhere") == ["NumPy sees None"]
