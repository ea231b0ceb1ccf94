"""Settings of all tests: JAX on the CPU with strict ranks, and fixtures that many tests share."""

import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile

# Set before anything imports JAX. The tests spend most of their time compiling, and code that runs
# for a second need not be optimised. One update of the world model takes 13 CPU seconds to compile
# without LLVM's optimisations, 6 with XLA's older emitters of fused operations, and 5 if the code
# is not split into parts for several threads. It runs as fast.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1",
)

# All processes share a compilation cache: the workers of pytest-xdist and the programs that tests
# start inherit the folder from the first process, which removes it at its end.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rlcar-jax-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Otherwise onnxruntime reports its use to its makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Background jobs of a shell ignore Ctrl-C, and their children inherit that. Tests send Ctrl-C to
# programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest
import typer.main

from rlcar import cli
from rlcar.config import Config, make_config
from rlcar.devices.compile_cache import prepare_jax

prepare_jax()  # The processes of pytest-xdist share the cache.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Typer makes all commands anew for each command line, which takes 40 ms of the processor; the tests
# run thousands of command lines in one process.
typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return make_config(mode="test")


@pytest.fixture
def rlcar(monkeypatch, capsys, tmp_path):
    """Returns a function that runs `rlcar <arguments>` in an empty folder.

    It returns the exit code, stdout and stderr.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlcar", *map(str, arguments)])
        capsys.readouterr()  # discards the output of fixtures
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Sorts files with long and slow tests first, so that all processes end at about the same time.

    `--dist loadfile` gives whole files to processes, because the tests of a file share fixtures.
    """
    longest, slow = (
        {item.path for item in items if item.get_closest_marker(name)} for name in ("ci", "slow")
    )
    items.sort(key=lambda item: (item.path not in longest, item.path not in slow))
