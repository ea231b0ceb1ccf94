"""The queries of the dashboards."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.deploy.monitoring.rules import DASHBOARDS


def panels(file: Path) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard that ask something."""
    yield from (one for one in json.loads(file.read_text())["panels"] if "targets" in one)


def expressions() -> dict[str, str]:
    """Every query, as it is written -> where it stands."""
    found = {}
    for file in DASHBOARDS:
        for panel in panels(file):
            for target in panel["targets"]:
                found[target["expr"]] = f"{file.stem}: {panel['title']}"
        for variable in json.loads(file.read_text())["templating"]["list"]:
            query = variable["query"]
            if isinstance(query, dict):
                (selector,) = re.findall(r"^label_values\((.*), \w+\)$", query["query"])
                found[selector] = f"{file.stem}: variable {variable['name']}"
    return found


def with_variables(expression: str, interval: str = "1m") -> str:
    """The query with all values of each variable chosen, as Grafana sends it."""
    return re.sub(r"\$(?!__)\w+", ".*", expression.replace("$__rate_interval", interval))
