"""JAX on the CPU, strict about ranks; and the smallest configuration in which everything runs."""

import atexit
import os
import shutil
import signal
import sys
import tempfile

# Before anything imports JAX. Most of the tests' time is compiling: code that runs for a second
# need not be optimised.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# What one process has compiled, no other need: pytest-xdist's workers and the programs that tests
# start inherit the folder from the first process, which removes it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rlcar-jax-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# A shell's background job ignores Ctrl-C and hands that on; tests send it to programs they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest

from rlcar import cli
from rlcar.config import Config, make_config
from rlcar.devices.compile_cache import prepare_jax

prepare_jax()  # The processes of pytest-xdist share the cache.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return make_config(mode="test")


@pytest.fixture
def rlcar(monkeypatch, capsys, tmp_path):
    """Runs a command line in an empty folder; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlcar", *map(str, arguments)])
        capsys.readouterr()  # what fixtures said
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files with long and slow tests go first, so that no process waits at the end for another's.

    `--dist loadfile` deals whole files out to the processes, for what their tests share.
    """
    longest, slow = (
        {item.path for item in items if item.get_closest_marker(name)} for name in ("ci", "slow")
    )
    items.sort(key=lambda item: (item.path not in longest, item.path not in slow))
