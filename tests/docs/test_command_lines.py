"""Every `rlcar …` of the pages is a command line that the program accepts, also where none runs."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import parse

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("*/README.md")),
]
_PLACEHOLDERS = {"N": "1", "PORT": "8000"}
_REDIRECTIONS = re.compile(r"\s+(?:>|\|).*")


def command_lines() -> list[str]:
    """The lines of shell blocks that begin with `rlcar`, with those that a backslash continues."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL):
            joined = re.sub(r"\\\n\s*", "", block)
            found += [
                line for line in joined.splitlines() if re.match(r"(sudo -u \S+ )?rlcar ", line)
            ]
    return sorted(set(found))


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_of_the_pages_parses(line):
    words = shlex.split(_REDIRECTIONS.sub("", line), comments=True)
    parse([_PLACEHOLDERS.get(word, word) for word in words[words.index("rlcar") + 1 :]])


def test_a_wrong_option_is_found():
    with pytest.raises(Exception, match="(?i)no such option"):
        parse(["backup", "target", "--no-such-option"])
