"""Every message that docs/troubleshooting.md quotes is one that the program can print."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("rlcar", "cluster", "serve")


def _texts_of_the_program() -> str:
    """All strings of the sources, and scripts; what is put into them at run time is `…`."""
    texts = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                texts.append("".join(map(str, parts)))
    texts += [(ROOT / "deploy/host" / name).read_text() for name in ("setup", "launch")]
    return "\n".join(texts)


def _quoted_messages() -> list[str]:
    """The texts in backticks of each table's first column, cut at `…`; names and codes are none."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    symptoms = [line.split(" | ")[0] for line in page.split("\n") if line.startswith("| ")]
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`]+)`", symptom)]
    return [part.strip() for text in quoted if " " in text for part in text.split("…") if part]


def test_every_quoted_message_stands_in_the_sources():
    texts = _texts_of_the_program()
    messages = _quoted_messages()
    assert len(messages) > 50
    assert [message for message in messages if message not in texts] == []
