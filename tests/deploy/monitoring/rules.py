"""The rules, their unit tests and their objects for Kubernetes, as the tests read them."""

import functools
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"
RULE_FILES = sorted((MONITORING / "rules").glob("*.yaml"))
UNIT_TEST_FILES = sorted((MONITORING / "tests").glob("*.yaml"))
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@functools.cache
def alerts() -> dict[str, dict[str, Any]]:
    """The rule of each alert, by its name."""
    return {
        rule["alert"]: rule
        for file in RULE_FILES
        for group in read(file)["groups"]
        for rule in group["rules"]
    }


@functools.cache
def unit_tests() -> dict[str, list[bool]]:
    """For each alert, whether it fires, in the order of its unit tests."""
    found: dict[str, list[bool]] = {}
    for file in UNIT_TEST_FILES:
        for test in read(file)["tests"]:
            for one in test["alert_rule_test"]:
                found.setdefault(one["alertname"], []).append(bool(one["exp_alerts"]))
    return found
