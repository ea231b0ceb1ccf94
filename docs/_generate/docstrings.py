"""Turns our docstrings, which are written as plain text with `code`, into reStructuredText."""

import functools
import importlib
import inspect
import re
from typing import Any

_CODE = re.compile(r"(`[^`\n]+`)")
_SPECIAL = re.compile(r"([\\*_|])")
_COLUMNS = re.compile(r"\S {2,}\S")


def to_restructured_text(
    app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Changes the lines of a docstring in place; autodoc calls it.

    A field of a named tuple has no docstring: it gets the comment beside it in the source.
    """
    if kind == "attribute" and lines and lines[0].startswith("Alias for field number"):
        lines[:] = [comment_of(name)]
    lines[:] = convert(lines)


def comment_of(name: str) -> str:
    """Returns the comment beside a field, or above it, by the field's full name."""
    path, _, field = name.rpartition(".")
    module, _, owner = path.rpartition(".")
    return _comments(getattr(importlib.import_module(module), owner)).get(field, "")


@functools.cache
def _comments(owner: type) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(owner).splitlines():
        code, _, comment = line.partition("  # ")
        if line.strip().startswith("# "):
            above.append(line.strip().removeprefix("# "))
        else:
            field = re.match(r"    (\w+): ", code)
            if field:
                found[field[1]] = " ".join([*above, comment]).strip()
            above = []
    return found


def convert(lines: list[str]) -> list[str]:
    """Returns the lines with code marked, the rest escaped, and tables kept as they are."""
    converted: list[str] = []
    for paragraph in _paragraphs(lines):
        if any(_COLUMNS.search(line.strip()) for line in paragraph):
            converted += ["::", "", *(f"    {line}" for line in paragraph), ""]
        else:
            converted += [*(_inline(line) for line in paragraph), ""]
    return converted


def _paragraphs(lines: list[str]) -> list[list[str]]:
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [paragraph for paragraph in paragraphs if paragraph]


def _inline(line: str) -> str:
    return "".join(
        f"`{part}`" if part.startswith("`") else _SPECIAL.sub(r"\\\1", part)
        for part in _CODE.split(line)
    )
