"""The table of alerts, from the rules of `deploy/monitoring`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "rules"


def alerts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of the group and the rule of each alert."""
    for file in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                yield group["name"], rule


def render() -> str:
    """Returns a table of all alerts, with links to their runbooks."""
    rows = [
        f"| [{rule['alert']}](../runbooks/{rule['alert']}.md) | {rule['labels']['severity']} "
        f"| {rule.get('for', 'at once')} | {_meaning(rule['alert'])} |"
        for _, rule in alerts()
    ]
    return "\n".join(["| Alert | Severity | After | Meaning |", "| --- | --- | --- | --- |", *rows])


def _meaning(alert: str) -> str:
    """Returns the first paragraph of the alert's runbook, with links from the table's page."""
    text = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text()
    meaning = text.partition("## Meaning\n\n")[2].partition("\n\n")[0]
    return re.sub(r"\]\((\w+\.md)", r"](../runbooks/\1", meaning)
