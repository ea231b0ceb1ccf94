"""The tutorial "Add an algorithm": the files of the page, added to a copy of the program, work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-an-algorithm.md"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n:caption: (\S+)\n\n(.*?)```", re.DOTALL)
CONSOLE = re.compile(r"^\$ (.*)$", re.MULTILINE)
COPIED = ("rlcar", "cluster", "serve", "benchmarks", "tests", "pyproject.toml")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the program with the page's algorithm in it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    for language, name, text in BLOCK.findall(PAGE.read_text()):
        file = folder / name
        if language == "diff":
            file.write_text(_changed(file.read_text(), text))
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    return folder


def _changed(source, diff):
    """Replaces each group of lines that begin with a minus by the plus lines that follow it."""
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        before, after = (re.sub("^.", "", lines, flags=re.MULTILINE) for lines in (old, new))
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return source


def _run(folder, *command):
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def _commands(program):
    return [line.split() for line in CONSOLE.findall(PAGE.read_text()) if program in line.split()]


@pytest.mark.slow
def test_the_algorithm_of_the_page_trains_is_published_and_acts(copy):
    commands = _commands("rlcar")
    assert [command[1] for command in commands] == ["train", "models"]
    for _, *arguments in commands:
        _run(copy, sys.executable, "-m", "rlcar.cli", *arguments)
    assert _run(copy, sys.executable, "act.py") == "(1, 2)\n"


@pytest.mark.long
@pytest.mark.slow
def test_the_tests_of_all_algorithms_hold_for_that_of_the_page(copy):
    for line in CONSOLE.findall(PAGE.read_text()):
        setting, _, command = line.rpartition("pytest ")
        if "pytest" in line:
            words = re.findall(r'"[^"]*"|\S+', command)
            output = _run(
                copy,
                "env",
                *setting.split(),
                sys.executable,
                *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(word.strip('"') for word in words),
            )
            assert re.search(r"[1-9]\d* passed", output), output


def test_the_page_shows_the_table_as_it_is_and_code_of_about_a_hundred_lines(copy):
    from_page = [
        text for language, _, text in BLOCK.findall(PAGE.read_text()) if language == "python"
    ]
    lines = [line for text in from_page for line in text.split("\n") if line.strip()]
    assert len(lines) < 200
    assert "reinforce.ALGORITHM" in (copy / "rlcar" / "agents" / "__init__.py").read_text()


def test_the_code_of_the_page_passes_the_checks_of_the_project(copy):
    added = copy / "rlcar" / "agents" / "reinforce"
    _run(copy, sys.executable, "-m", "ruff", "check", str(added))
    _run(copy, sys.executable, "-m", "ruff", "format", "--diff", str(added))
