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
    """Returns the lines with code marked, tables converted, and the rest escaped."""
    converted: list[str] = []
    for paragraph in _paragraphs(lines):
        if all(line.strip().startswith("|") for line in paragraph):
            converted += _table(paragraph)
        elif any(_COLUMNS.search(line.strip()) for line in paragraph):
            converted += ["::", "", *(f"    {line}" for line in paragraph), ""]
        else:
            converted += [*(_inline(line) for line in paragraph), ""]
    return converted


def _table(lines: list[str]) -> list[str]:
    """Converts a Markdown table; a row with an empty first cell continues the row above it."""
    rows: list[list[str]] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if set("".join(cells)) <= {"-"}:
            continue
        if rows and not cells[0]:
            rows[-1] = [
                f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)
            ]
        else:
            rows.append(cells)
    converted = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for index, cell in enumerate(row):
            converted.append(f"   {' ' if index else '*'} - {_inline(cell)}")
    return [*converted, ""]


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
