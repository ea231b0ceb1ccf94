"""Every command and every piece of Python in the README and the docs runs.

What needs a cluster stands in `shell` blocks and runs in tests/cluster/test_jobs.py.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("*/README.md")]
RLCAR = Path(sys.executable).with_name("rlcar")
# A run so short that it only drives; what the loop does with more is tested elsewhere.
TINY = "--mode test --set training.env_steps=256 --local"


def _blocks(language: str) -> list[str]:
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [block for page in PAGES for block in pattern.findall(page.read_text())]


def _commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip() for block in _blocks("bash") for line in block.split("\n")
    ]
    return [line for line in lines if line]


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def _watch(words: list[str], folder: Path) -> None:
    """Opens the page that a command shows, and ends it as Ctrl-C does."""
    command = [str(RLCAR), *words[1:], "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = said.partition("the page: ")[2].strip()
        assert address, said
        with urllib.request.urlopen(address) as answer:
            assert b"rlcar" in answer.read()
        process.send_signal(signal.SIGINT)


def _as_rlcar(command: str) -> list[str]:
    """Unfolds a make target to the rlcar command that it runs."""
    if not command.startswith("make"):
        return shlex.split(command)
    # These tests themselves run under make, whose own messages would otherwise come first and last.
    options = ["--dry-run", "--always-make", "--no-print-directory"]
    dry_run = _run([*shlex.split(command), *options], ROOT)
    assert dry_run.returncode == 0, (command, dry_run.stderr)
    return shlex.split(dry_run.stdout.strip().split("\n")[-1])


def test_make_test_is_this_very_run():
    assert _as_rlcar("make test")[0].endswith("pytest")


@pytest.mark.slow
def test_every_command_runs_in_the_order_of_the_page(tmp_path):
    """`--resume auto` and `evaluate` need what the lines above them left."""
    commands = [command for command in _commands() if command not in ("make test", "make check")]
    assert len(commands) >= 10
    for command in commands:
        words = _as_rlcar(command)
        if words[1] == "render":
            result = _run([str(RLCAR), *words[1:]], tmp_path)
            assert result.returncode == 0, (command, result.stderr[-2000:])
            assert (tmp_path / words[words.index("--out") + 1]).exists(), command
            continue
        assert words[0].endswith("rlcar"), command
        if words[1] == "models":
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
