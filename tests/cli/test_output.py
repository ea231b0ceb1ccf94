"""What the commands print into pipes and CI logs: readable lines without control characters."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlcar.registry import Registry
from tests.support.tiny_run import SHORT_TRAINING
from tests.support.untrained_run import untrained

RLCAR = Path(sys.executable).with_name("rlcar")
ENVIRONMENTS = {
    "pipe": {},
    "NO_COLOR": {"NO_COLOR": "1"},
    "CI": {"CI": "true", "GITHUB_ACTIONS": "true", "FORCE_COLOR": "1", "PY_COLORS": "1"},
}
COMMANDS = [
    [],
    ["--help"],
    ["train", "--help"],
    ["train", "--no-such-option"],
    ["models", "list"],
    ["models", "show", "latest"],
    ["monitor"],
    ["serve", "--lane", "none"],
]


@pytest.fixture
def variables(request):
    own = ENVIRONMENTS[request.param]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("piped")
    (folder / "runs").mkdir()
    (folder / "runs" / "first").symlink_to(untrained())
    Registry(folder / "models").publish(untrained())
    return folder


def printed(words, folder, variables):
    """Runs a command, its output a pipe; returns the text and the exit code."""
    done = subprocess.run(
        [RLCAR, *words],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout, done.returncode


def assert_is_readable(text):
    assert text.strip()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    assert "Traceback" not in text


def cases():
    """Every command in a CI log, where colours are forced, and a table in the others."""
    for name in ENVIRONMENTS:
        for words in COMMANDS if name == "CI" else (["train", "--help"], ["models", "list"]):
            yield pytest.param(name, words, id=f"{name}-{' '.join(words) or 'rlcar'}")


@pytest.mark.parametrize(("variables", "words"), [*cases()], indirect=["variables"])
def test_output_through_a_pipe_has_no_control_characters(words, folder, variables):
    text, code = printed(words, folder, variables)
    assert_is_readable(text)
    assert code in (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("variables", ["CI"], indirect=True)
@pytest.mark.long
def test_a_training_in_a_ci_log_prints_lines_and_few_of_them(tmp_path, variables):
    text, code = printed([*SHORT_TRAINING, "--name", "a b"], tmp_path, variables)
    assert code == 0, text
    assert_is_readable(text)
    assert len(text.splitlines()) < 50
    assert text.splitlines()[-1] == "  publish and serve it  rlcar serve 'runs/a b'"
