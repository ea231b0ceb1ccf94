"""Every command and every piece of Python in the README and the docs runs.

What needs a cluster stands in `shell` blocks and runs in tests/cluster/jobs/test_jobs.py.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import free_port
from rlcar.runs.metric_table import METRICS
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/how-to/*.md")),
    *ROOT.glob("*/README.md"),
]
RLCAR = Path(sys.executable).with_name("rlcar")
# A run so short that it only drives; what the loop does with more is tested elsewhere.
TINY = "--mode test --set training.env_steps=256 --local"


def _blocks(language: str, pages: Sequence[Path] = PAGES) -> list[str]:
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [block for page in pages for block in pattern.findall(page.read_text())]


def _commands(pages: Sequence[Path] = PAGES) -> list[str]:
    lines = [
        line.split("  #")[0].strip()
        for block in _blocks("bash", pages)
        for line in block.split("\n")
    ]
    return [line for line in lines if line]


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def _watch(words: list[str], folder: Path) -> None:
    """Opens the page that a command shows, and ends it as Ctrl-C does."""
    command = [str(RLCAR), *words[1:], "--port", "0"]
    with _ended(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)) as page:
        said = page.stderr.readline()
        address = said.partition("the page: ")[2].strip()
        assert address, said
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"rlcar" in answer.read()
        page.send_signal(signal.SIGINT)
        errors = page.communicate(timeout=60)[1]
    assert "Traceback" not in errors, errors
    assert page.returncode == 130, errors  # as of any program that Ctrl-C has ended


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[Any]:
    """Leaves no process behind, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Served:
    """The server that a page starts; the real-time lane, at a port of its own, for later lines."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack
        self._port = 0

    def start(self, words: list[str], folder: Path) -> None:
        self._stack.close()
        self._port = free_port()
        command = [str(RLCAR), *words[1:], "--lane", "realtime", "--port", str(self._port)]
        process = self._stack.enter_context(_ended(subprocess.Popen(command, cwd=folder)))
        self._stack.callback(process.wait, timeout=60)
        self._stack.callback(process.send_signal, signal.SIGTERM)
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        address = f"http://127.0.0.1:{self._port}/health/ready"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10):
            return True
        return False

    def run(self, words: list[str], folder: Path) -> None:
        ours = [word.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}") for word in words]
        command = [str(RLCAR), *ours[1:]] if words[0].endswith("rlcar") else ours
        result = _run(command, folder)
        assert result.returncode == 0, (words, result.stderr[-2000:])
        assert "figure fallbacks=" in result.stdout or '"source":"model"' in result.stdout


def _as_rlcar(command: str) -> list[str]:
    """Unfolds a make target to the rlcar command that it runs."""
    if not command.startswith("make"):
        return shlex.split(command)
    # These tests themselves run under make, whose own messages would otherwise come first and last,
    # and whose ARGS, which reach us as a variable too, would become those of this command.
    options = ["--dry-run", "--always-make", "--no-print-directory"]
    dry_run = _run(["env", "ARGS=", "MAKEFLAGS=", *shlex.split(command), *options], ROOT)
    assert dry_run.returncode == 0, (command, dry_run.stderr)
    return shlex.split(dry_run.stdout.strip().split("\n")[-1])


def test_make_test_is_this_very_run():
    assert _as_rlcar("make test")[0].endswith("pytest")


def test_the_options_of_these_tests_are_not_those_of_a_documented_command(monkeypatch):
    monkeypatch.setenv("ARGS", "-k some")
    monkeypatch.setenv("MAKEFLAGS", "-- ARGS=-k\\ some")
    assert _as_rlcar("make train")[1:] == ["train"]


@pytest.mark.parametrize(
    ("pages", "least"),
    [
        # A newcomer's first minutes, which CI runs too.
        pytest.param([ROOT / "README.md"], 3, marks=pytest.mark.ci),
        pytest.param(PAGES, 10),
    ],
    ids=["first page", "all pages"],
)
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_runs_in_the_order_of_the_page(tmp_path, monkeypatch, pages, least):
    """`--resume auto` and `evaluate` need what the lines above them left."""
    monkeypatch.setenv("RLCAR_TOKENS", str(tmp_path / "tokens.json"))
    commands = [command for command in _commands(pages) if not command.startswith("make test")]
    assert len(commands) >= least
    with contextlib.ExitStack() as stack:
        _run_every_command(commands, tmp_path, Served(stack))
    files = list(tmp_path.glob("runs/*/metrics.jsonl"))
    assert files
    rows = [json.loads(row) for file in files for row in file.read_text().splitlines()]
    assert {name for row in rows for name in row} <= METRICS.keys()


def _run_every_command(commands, tmp_path, served):
    done: set[str] = set()
    serving: list[str] = []
    for command in commands:
        words = _as_rlcar(command)
        # Pages repeat these; what they ask does not change what later commands find.
        if command in done and (words[0] == "curl" or words[1] in ("doctor", "drive")):
            continue
        done.add(command)
        if words[1] == "render":
            result = _run([str(RLCAR), *words[1:]], tmp_path)
            assert result.returncode == 0, (command, result.stderr[-2000:])
            assert (tmp_path / words[words.index("--out") + 1]).exists(), command
            continue
        if words[0] == "curl" or words[1] == "drive":
            served.run(words, tmp_path)
            continue
        assert words[0].endswith("rlcar"), command
        if words[1] == "serve":
            if words != serving:  # Otherwise the server of an earlier page still runs.
                served.start(words, tmp_path)
            serving = words
            continue
        if words[1] in ("models", "tokens", "backup", "restore"):
            result = _run([str(RLCAR), *words[1:]], tmp_path)
            assert result.returncode == 0, (command, result.stderr[-2000:])
            continue
        if words[1] == "watch":
            _watch(words, tmp_path)
            continue
        extra = shlex.split(TINY) if words[1] == "train" else []
        if words[1] in ("doctor", "monitor"):
            result = _run([str(RLCAR), *words[1:]], tmp_path)
            assert result.returncode == 0, (command, result.stdout[-2000:], result.stderr[-2000:])
            continue
        if "--resume" in words:
            extra = ["--local", "--set", "training.env_steps=512"]
        result = _run([str(RLCAR), *words[1:], *extra], tmp_path)
        assert result.returncode == 0, (command, result.stdout[-2000:], result.stderr[-2000:])
        assert "figure " in result.stdout, command


def test_the_python_in_the_pages_runs(monkeypatch):
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_every_link_to_a_file_leads_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert os.path.exists(page.parent / link), (page.name, link)
