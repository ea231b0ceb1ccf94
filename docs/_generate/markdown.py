"""Small pieces of Markdown: tables that survive any text in their cells."""

import re
from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    """Returns text in code style."""
    return f"`{text}`" if text else ""


def escape(text: str) -> str:
    """Returns plain text as Markdown that shows it as it is."""
    return re.sub(r"([\\*_<>\[\]{}`#])", r"\\\1", text)


def anchored(text: str, anchor: str) -> str:
    """Returns text in code style that links can point to (`page.md#anchor`)."""
    assert re.fullmatch(r"[A-Za-z0-9_-]+", anchor), anchor  # else it would be shown as text
    return f"`{text}`{{#{anchor}}}"


def entry(names: str, meaning: str, facts: Iterable[str]) -> str:
    """Returns a name with its meaning below it, and a line of facts that are not empty."""
    small = " · ".join(fact for fact in facts if fact)
    text = f"{names}\n: {_line(meaning)}\n"
    return f"{text}\n  [{small}]{{.facts}}\n\n" if small else f"{text}\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """Returns a table; `kind` is its CSS class, by which narrow screens stack its cells."""
    lines = [
        f"{{.{kind}}}",
        "| " + " | ".join(columns) + " |",
        "| " + " | ".join("---" for _ in columns) + " |",
        *("| " + " | ".join(_cell(text) for text in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def heading(level: int, text: str) -> str:
    """Returns a heading with the empty lines that it needs."""
    return f"\n{'#' * level} {text}\n"


def paragraph(docstring: str) -> str:
    """Returns the first paragraph of a docstring as one line."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|") or "–"


def _line(text: str) -> str:
    return " ".join(text.split())
