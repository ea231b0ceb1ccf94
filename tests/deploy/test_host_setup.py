"""The setup script: checks a host, builds and proves the environment, and can be repeated."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.installed_host import ROOT, VENV
from tests.support.waiting import wait_until

SETUP = "deploy/host/setup"
# What nvidia-smi prints for the two calls of the script.
CARDS = "0, NVIDIA H200, 550.54.14, 143771\n1, NVIDIA T400 4GB, 550.54.14, 4096"
needs_no_driver = pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None, reason="this machine has a driver"
)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Copies what the script uses of a checkout; it writes into the copy alone."""
    folder = tmp_path / "checkout"
    for name in ("deploy/host", "rlcar", "cluster", "serve"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def environment(checkout: Path, programs: Path | None = None) -> dict[str, str]:
    path = os.environ["PATH"]
    return os.environ | {
        "PATH": path if programs is None else f"{programs}:{path}",
        "PYTHONPATH": str(checkout),
    }


def setup(
    checkout: Path, *options: object, programs: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / SETUP), "--venv", str(VENV), *map(str, options)],
        env=environment(checkout, programs),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def with_driver(folder: Path, csv: str, *, code: int = 0, cuda: str = "12.4") -> Path:
    """Writes a program that prints what NVIDIA's does on a host with these cards."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(
        f"""#!/bin/sh
case "$*" in
  *--query-gpu*) printf '%s\\n' '{csv}' ;;
  *) echo '| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: {cuda}     |' ;;
esac
exit {code}
"""
    )
    program.chmod(0o755)
    return folder


@needs_no_driver
def test_a_host_without_a_driver_is_one_sentence_and_cpu_goes_on(checkout):
    done = setup(checkout, "--dry-run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: this host has no NVIDIA driver (there is no nvidia-smi): inst")
    assert line.endswith("or continue without a card with --cpu")
    done = setup(checkout, "--dry-run", "--cpu")
    assert done.returncode == 0, done.stderr
    assert "ok       no card is used (--cpu)\n" in done.stdout
    assert done.stdout.endswith(
        "would run a small job for each back end (some minutes)\n"
        "1 changes would be made; nothing was changed\n"
    )
    assert not (checkout / ".cache").exists()


def test_driver_cuda_and_the_memory_of_each_card_are_reported(checkout, tmp_path):
    done = setup(checkout, "--dry-run", programs=with_driver(tmp_path / "bin", CARDS))
    assert done.returncode == 0, done.stderr
    assert "ok       NVIDIA driver 550.54.14, CUDA 12.4\n" in done.stdout
    assert "ok       card 0: NVIDIA H200, 143771 MiB of memory\n" in done.stdout
    assert "warning  card 1: NVIDIA T400 4GB has 4096 MiB of memory: run few jobs" in done.stdout


@pytest.mark.parametrize(
    ("csv", "code", "message"),
    [
        ("0, Tesla K80, 470.82.01, 11441", 0, "the NVIDIA driver 470.82.01 (CUDA 12.4) is too"),
        (
            "NVIDIA-SMI has failed because it couldnt communicate with the NVIDIA driver.",
            9,
            "the NVIDIA driver does not work (NVIDIA-SMI has failed because",
        ),
        ("", 0, "nvidia-smi lists no card: check the host (lspci"),
    ],
)
def test_a_driver_that_cannot_be_used_is_one_sentence(checkout, tmp_path, csv, code, message):
    done = setup(checkout, programs=with_driver(tmp_path / "bin", csv, code=code))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert line.endswith("continue without a card with --cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nosuch"], "there is no option --nosuch: --help lists them"),
        (["--extra", "nosuch"], "--extra nosuch: pyproject.toml has no such extra"),
        (["--extra"], "--extra needs a value"),
        (["--python", "/bin/false"], "no Python 3.11 to 3.13 (/bin/false; "),
        (["--cpu", "--venv", "/nowhere"], "--venv /nowhere holds no bin/rlcar"),
    ],
)
def test_a_mistake_is_one_sentence(checkout, options, message):
    done = setup(checkout, *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: ")
    assert message in line


@pytest.mark.ray
@pytest.mark.long
def test_an_interrupted_run_is_repeated_and_a_complete_one_changes_nothing(checkout):
    command = [checkout / SETUP, "--venv", VENV, "--cpu"]
    first = subprocess.Popen(command, env=environment(checkout), start_new_session=True)
    lock = checkout / ".cache/setup/.lock"
    wait_until(lock.exists, 60)
    refused = setup(checkout, "--cpu")
    assert refused.returncode == 2
    assert "setup: another run of this script" in refused.stderr
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (checkout / ".cache/setup/passed").exists()

    wait_until(lambda: "another run" not in setup(checkout, "--cpu", "--no-smoke").stderr, 60)
    done = setup(checkout, "--cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    for back_end in ("race in one process", "race on Ray"):
        assert any(line.startswith(f"{back_end} ") for line in done.stdout.splitlines())
    assert " failed " not in done.stdout
    assert done.stdout.endswith("start a campaign with: deploy/host/launch FILE\n")

    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*")}
    again = setup(checkout, "--cpu")
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith(
        "the small jobs have passed on this host; --smoke repeats them\n"
        "everything is as it should be: nothing changed\n"
    )
    after = {path: path.stat().st_mtime_ns for path in checkout.rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} <= {
        lock, lock.parent
    }  # fmt: skip

    (checkout / "rlcar/types.py").write_text("raise SystemExit('broken')\n")
    broken = setup(checkout, "--cpu")
    assert broken.returncode == 2
    assert "setup: a back end does not work on this host (see the table)" in broken.stderr
