"""`rlcar` alone, help texts and shell completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rlcar import cli

ROOT = Path(__file__).parents[2]


def commands(command, words=()):
    """Yields the words of each command, groups included, and the command."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS = [*commands(typer.main.get_command(cli.app))]
PARAMETERS = [
    pytest.param(parameter, id=" ".join((*words, parameter.opts[0])))
    for words, command in COMMANDS
    for parameter in command.params
]


def assert_is_a_sentence(text):
    sentence = text.partition(" [")[0]
    assert sentence.endswith(".")
    assert sentence[0].isupper()
    assert len(sentence.split()) >= 3


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_option_and_argument_has_a_help_text_that_makes_sense_alone(parameter):
    assert_is_a_sentence(parameter.help or "")


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=lambda one: str(one)[:40])
def test_every_command_has_a_help_text(words, command):
    assert_is_a_sentence((command.help or "").splitlines()[0])


def test_the_walk_finds_every_option():
    assert len(COMMANDS) > 30
    assert len(PARAMETERS) > 120


def test_rlcar_alone_shows_how_to_start(rlcar):
    code, out, stderr = rlcar()
    assert (code, stderr) == (0, "")
    for start in ("  rlcar train ", "  rlcar watch latest ", "  rlcar serve "):
        assert start in out
    assert "rlcar --help" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_commands_to_start_with_exist():
    names = {words[0] for words, _ in COMMANDS if words}
    assert {"train", "watch", "serve"} <= names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell):
    def completions(line):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        words |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(
            [Path(sys.executable).with_name("rlcar")],
            env={**os.environ, "PYTHONPATH": str(ROOT), "_RLCAR_COMPLETE": f"complete_{shell}"}
            | words,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.stdout

    assert "train" in completions("rlcar tr")
    assert "--preset" in completions("rlcar train --pre")
