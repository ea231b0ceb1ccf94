"""Terminals and what is none: no bars or colours in files, no traceback for an encoding."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlcar.registry import Registry
from rlcar.runs.metrics import ProgressLine
from rlcar.system.console import make_console
from tests.support.untrained_run import untrained

ROOT = Path(__file__).parents[2]
FORCED = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NARROW = [
    pytest.param(ASCII, id="C"),
    pytest.param({**ASCII, "PYTHONIOENCODING": "latin-1"}, id="latin-1"),
    pytest.param({"PYTHONIOENCODING": "ascii:strict"}, id="ascii"),
]
# What others have written is shown in each encoding, and what is ours alone in the narrowest.
FOREIGN = [["models", "list"], ["--ünknown"], ["models", "promote", "no…model"]]
OURS = [["train", "--help"], ["doctor"], ["monitor"]]


def cases(foreign, ours):
    """Command lines, each with variables that narrow its output."""
    pairs = [(words, variables) for words in foreign for variables in NARROW]
    pairs += [(words, NARROW[2]) for words in ours]
    return [
        pytest.param(words, *variables.values, id=f"{' '.join(words)}-{variables.id}")
        for words, variables in pairs
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "runs").mkdir()
    (folder / "runs" / "first").symlink_to(untrained())
    Registry(folder / "models").publish(untrained(), "grün – 緑 …")
    return folder


def run(folder, words, variables, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "rlcar.cli", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=120,
        **options,
    )


def on_a_terminal(folder, words, variables):
    """What a program writes to a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    try:
        done = run(folder, words, {"TERM": "xterm", **variables}, stdout=theirs, stderr=theirs)
        os.set_blocking(ours, False)
        said = b""
        while True:
            try:
                said += os.read(ours, 65_536)
            except BlockingIOError:
                return done.returncode, said
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("words", "variables"), cases(FOREIGN, OURS))
def test_no_encoding_of_a_stream_ends_in_a_traceback(folder, words, variables):
    done = run(folder, words, variables, capture_output=True)
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr.replace(b"- Error -", b"")
    done.stderr.decode("latin-1")


@pytest.mark.parametrize(
    ("words", "variables"), cases([["models", "list"]], [["monitor"], ["train", "--help"]])
)
def test_no_encoding_of_a_terminal_ends_in_a_traceback(folder, words, variables):
    code, said = on_a_terminal(folder, words, variables)
    assert code == 0, said
    assert said
    assert b"Traceback" not in said


@pytest.mark.parametrize("variables", NARROW)
def test_a_progress_bar_works_in_every_encoding(folder, variables):
    script = (
        "from rlcar.system.console import accept_any_text\n"
        "from rlcar.runs.metrics import ProgressLine\n"
        "accept_any_text()\n"
        "with ProgressLine(100) as line: line.update(50, {'episode/reward': 1.0})\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **variables}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, stdout=theirs, stderr=theirs, timeout=60)
    said = os.read(ours, 65_536)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, said
    assert b"50%" in said


@pytest.mark.parametrize("words", [["models", "list"], ["doctor"], ["models", "show", "9"]])
def test_forced_colours_stay_out_of_files(folder, words):
    done = run(folder, words, FORCED, capture_output=True)
    assert done.stdout + done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


def test_a_terminal_has_colours(folder):
    assert b"\x1b[" in on_a_terminal(folder, ["doctor"], {"NO_COLOR": ""})[1]


def test_a_progress_bar_is_for_terminals_alone_whatever_is_forced(monkeypatch, capsys):
    for name, value in FORCED.items():
        monkeypatch.setenv(name, value)
    with ProgressLine(100, plain_every_s=1e-9) as line:
        for env_steps in range(0, 101, 10):
            line.update(env_steps, {})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "100/100 env steps (100%)" in out
    assert not make_console().is_terminal


def test_settings_are_written_as_they_are_read_whatever_the_locale(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from rlcar.config import load_config, make_config; from rlcar.runs.run import Run\n"
        "config = make_config(mode='test', overrides=['training.storage=/tmp/gr\\u00fcn'])\n"
        "with Run(Path(sys.argv[1]), config): pass\n"
        "assert load_config(Path(sys.argv[1]) / 'config.json') == config\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **ASCII}
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_console_is_made_in_one_place():
    """Rich's own takes a file for a terminal when FORCE_COLOR is set."""
    sources = [
        path for name in ("rlcar", "cluster", "serve") for path in ROOT.glob(f"{name}/**/*.py")
    ]
    made = {path.name for path in sources if re.search(r"Console\(", path.read_text())}
    assert made == {"console.py"}
