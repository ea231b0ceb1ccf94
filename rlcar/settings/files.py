"""Reads settings from YAML and JSON files of bounded size, in which no key may appear twice."""

import json
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlcar.errors import ConfigError
from rlcar.system.regular_file import read_regular

LARGEST_FILE_BYTES = 2**20
# Aliases (`*name`) repeat the value of an anchor (`&name`) and can be nested, so a few lines can
# stand for billions of values. No settings need this many, with every repetition counted.
MOST_VALUES = 100_000

_MERGE = "tag:yaml.org,2002:merge"


class DuplicateKeyError(ValueError):
    """A mapping that holds the same key twice."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys and too many repetitions, and reads `1e-3` as a number.

    PyYAML silently keeps the last of several equal keys, although YAML forbids them. It follows
    YAML 1.1, in which a number with an exponent needs a decimal point and a sign.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # the constructor refuses such a key
            is_merge = key_node.tag == _MERGE
            key: Hashable = _MERGE if is_merge else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise DuplicateKeyError(_appears_twice(key_node.value, lines[key], line))
            lines[key] = line
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _count(node, {}) > MOST_VALUES:
            raise ValueError(
                f"it stands for more than {MOST_VALUES:,} values, because its aliases (*name) "
                "repeat one another: write the values out"
            )
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)

# PyYAML also passes on errors of Python, for example about a date with month 13 or a list as a key.
_ERRORS = (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError)


def parse_yaml(text: str) -> Any:
    """Parses YAML text; raises ConfigError with the reason."""
    try:
        return yaml.load(text, _Loader)
    except _ERRORS as error:
        raise ConfigError(_reason(error)) from error


def parse_json(text: str) -> Any:
    """Parses JSON text; raises ConfigError with the reason."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except DuplicateKeyError as error:
        found: Exception = error
        # The JSON parser does not know lines; the YAML parser does, and reads most of JSON.
        try:
            yaml.compose(text, _Loader)
        except DuplicateKeyError as with_lines:
            found = with_lines
        except _ERRORS:
            pass
        raise ConfigError(_reason(found)) from found
    except (ValueError, RecursionError) as error:
        raise ConfigError(_reason(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of settings; raises ConfigError if it is unreadable or has none."""
    tree = _read(path, "the config file", parse_yaml, lambda: _bounded(path))
    return {} if tree is None else _require_settings(tree, f"the config file {path}")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of settings; raises ConfigError if it is unreadable or has none."""
    # Others may write to its folder, so anything may be in its place.
    tree = _read(path, "the config", parse_json, lambda: read_regular(path, LARGEST_FILE_BYTES))
    return _require_settings(tree, f"the config {path}")


def _read(path: Path, kind: str, parse: Callable[[str], Any], read: Callable[[], bytes]) -> Any:
    try:
        return parse(read().decode())
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f"cannot read {kind} {path}: {_reason(error)}") from error


def _bounded(path: Path) -> bytes:
    """Reads a file that the user named, which may be a pipe, up to a limit."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE_BYTES + 1)
    if len(data) > LARGEST_FILE_BYTES:
        raise ValueError(f"it is larger than {LARGEST_FILE_BYTES:,} bytes")
    return data


def _require_settings(tree: Any, what: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{what} holds a {type(tree).__name__}, not settings")
    for key in tree:
        if not isinstance(key, str):
            raise ConfigError(f"{what} names a setting {key!r}: the name of a setting must be text")
    return tree


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"the key {twice!r} appears twice in the same section")
    return tree


def _appears_twice(key: str, first_line: int, second_line: int) -> str:
    where = f"in line {first_line} and in line {second_line}"
    if first_line == second_line:
        where = f"in line {first_line}"
    return f"the key {key!r} appears twice in the same section, {where}: remove one of the two"


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Counts the values of a node, with every alias replaced by what it repeats."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if known[id(node)] == 0:
            raise ValueError(f"line {node.start_mark.line + 1} holds an alias of itself")
        return known[id(node)]
    known[id(node)] = 0  # not yet counted: a reference to it from below would be a cycle
    children = node.value
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]


def _reason(error: Exception) -> str:
    """Returns the reason of an error in one line."""
    if isinstance(error, RecursionError):
        return "its sections are nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8 text"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return str(error).partition("\n")[0]
