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


# Queries whose zero is a default where nothing has happened, and what would have to happen first.
NEVER_SEEN = {
    "ray_node_gpus_utilization": "a node has a GPU",
    'status=~"5.."': "a request fails in the server",
    'source="fallback"': "a car gets the brake",
    "ALERTS": "an alert fires",
}


def without_default(expression: str) -> str:
    """The query without `or vector(0)`, unless its metric may be absent for a good reason."""
    if any(one in expression for one in NEVER_SEEN):
        return expression
    return expression.replace(" or vector(0)", "")


def with_variables(expression: str, interval: str = "1m") -> str:
    """The query with all values of each variable chosen, as Grafana sends it."""
    return re.sub(r"\$(?!__)\w+", ".+", expression.replace("$__rate_interval", interval))
