"""The commands of the tutorial on recordings run in their order, with less data and training."""

import re
import shlex
from pathlib import Path

import httpx
import pytest

from tests.serve.served import program
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-recording.md"
URL = "http://127.0.0.1:8000"
_SHORT = ("--set", "training.env_steps=2048", "--set", "training.evaluate_every_env_steps=2048")
# What a command of the page gets in addition, by its first words.
ADDED = {
    ("train",): ("--mode", "test", *_SHORT),
    ("offline",): ("--mode", "test", "--updates", "100", *_SHORT),
    ("ope",): ("--updates", "100"),
}
SMALLER = {"20000": "3000", "1024": "16"}


def _commands() -> list[str]:
    blocks = re.findall(r"```shell\n(.*?)```", PAGE.read_text(), re.DOTALL)
    joined = [re.sub(r"\\\n\s*", "", block) for block in blocks]
    lines = [line.strip() for block in joined for line in block.splitlines()]
    return [line for line in lines if not re.match(r"for |done$", line)]


def test_the_commands_run_in_their_order(rlcar):
    before, after = _around(_commands(), "rlcar serve ")
    served = shlex.split(before.pop())
    assert served[:4] == ["rlcar", "serve", "--lane", "realtime"]
    for command in before:
        _run(rlcar, command)
    with program(Path("models"), *served[4:]) as server:
        for command in after:
            if command.startswith("curl"):
                wait_until(lambda: _recorded(server.url) >= 64)
                continue
            _run(rlcar, command.replace(URL, server.url))
        assert httpx.get(f"{server.url}/health/ready").json()["model_version"] == 2


def _recorded(url: str) -> float:
    """Returns the number of episodes that are on the disk."""
    answer = httpx.get(f"{url}/metrics", timeout=30).text
    return float(re.findall(r"(?m)^rlcar_recording_episodes_total (\S+)", answer)[0])


def _around(commands: list[str], begin: str) -> tuple[list[str], list[str]]:
    """Splits the commands after the one that begins so."""
    (index,) = [number for number, one in enumerate(commands) if one.startswith(begin)]
    return commands[: index + 1], commands[index + 1 :]


def _run(rlcar, command: str) -> None:
    words = [SMALLER.get(word, word) for word in shlex.split(command.replace("$seed", "1"))[1:]]
    added = next((more for head, more in ADDED.items() if tuple(words[: len(head)]) == head), ())
    if words[0] == "drive":
        added = ("--timeout-ms", "30000")
    code, out, said = rlcar(*words, *added)
    assert code == 0, (command, out, said)
