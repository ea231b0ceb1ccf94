"""Only `rlcar.agents` names an algorithm: all other packages look its descriptor up."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlcar.agents import ALGORITHMS

ROOT = Path(__file__).parents[2]
NAMES = "|".join(map(re.escape, ALGORITHMS))
# `documented` is a word of prose too: only the whole string, a setting's dotted name or an option.
QUOTED = re.compile(
    rf"^\s*({NAMES})(\.[a-z_.]+(=.*)?)?\s*$"
    rf"|(--algorithm|algorithm=) ?({NAMES})\b"
    rf"|(?<![\w-])({'|'.join(sorted(ALGORITHMS.keys() - {'documented'}))})(?![\w-])"
)
# A reward is called `documented` as well.
REWARD = re.compile(r"^    reward: Literal\[.*\]|reward == |reward=")


def namings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and the text of each place in a source that names an algorithm."""
    tree, lines = ast.parse(source), source.split("\n")
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_reward = REWARD.search(lines[node.lineno - 1]) is not None
            if id(node) not in docstrings and not is_reward and QUOTED.search(node.value):
                yield node.lineno, node.value
        elif isinstance(node, ast.Attribute) and node.attr in ALGORITHMS:
            # Other objects may have such an attribute too: the live page has a `dreamer`.
            if re.search("config|settings|base|parsed", ast.unparse(node.value)):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
            for module in modules:
                if re.match(rf"rlcar\.agents\.({NAMES})\b", module):
                    yield node.lineno, module
            if modules[0] == "rlcar.agents":
                yield from ((node.lineno, name) for name in modules[1:] if name in ALGORITHMS)


def _files() -> list[Path]:
    files = [
        path for package in ("rlcar", "cluster", "serve") for path in (ROOT / package).rglob("*.py")
    ]
    return [path for path in files if not path.is_relative_to(ROOT / "rlcar" / "agents")]


def test_no_other_package_names_an_algorithm():
    assert len(_files()) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in _files()
        for line, text in namings(path.read_text())
    ]
    assert found == [], "ask the descriptor in rlcar.agents.ALGORITHMS instead"


@pytest.mark.parametrize(
    "source",
    [
        'if config.algorithm == "ppo": pass',
        "rate = config.dreamer.optimizer",
        'rate = {"sac": "sac.learning_rate"}',
        'override = ["td3.learning_rate=1"]',
        'hint = "train it with --algorithm dreamer"',
        "from rlcar.agents.dreamer.dream import Dream",
        "from rlcar.agents import ppo",
        "import rlcar.agents.td3",
    ],
)
def test_each_way_to_name_one_is_found(source):
    assert list(namings(source))


def test_the_reward_of_that_name_and_prose_are_no_algorithms():
    source = '"""As dreamer does."""\nreward == "documented"\nx = "documented settings"'
    assert list(namings(source)) == []
