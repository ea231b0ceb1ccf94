"""Every alert is tested, explained, and equal on hosts and on Kubernetes."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from docs._generate import commands
from docs._generate.metrics import exported_metrics, live_metrics, observed_metrics, server_metrics
from tests.deploy.monitoring.rules import (
    MONITORING,
    ROOT,
    RULE_FILES,
    UNIT_TEST_FILES,
    alerts,
    read,
    unit_tests,
)

FOREIGN = ("up", "ray_", "prometheus_", "alertmanager_", "process_", "ALERTS")
NEEDS = {
    name: pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    for name in ("promtool", "amtool")
}


def checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def metric_names(expression: str) -> set[str]:
    """The names of the metrics that an expression selects."""
    promql_parser.parse(expression)
    selectors = re.sub(r"\b(by|on) *\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:up\b|(?:rlcar|ray|prometheus|alertmanager)_\w+)", selectors))


@functools.cache
def known_metrics() -> set[str]:
    exported = (*exported_metrics(), *observed_metrics(), *server_metrics(), *live_metrics())
    return {
        name
        for one in exported
        for name in (
            [f"{one.name}_{end}" for end in ("bucket", "sum", "count")]
            if one.kind == "histogram"
            else [one.name]
        )
    }


@pytest.mark.parametrize("name", ["prometheus.yaml", "prometheus-host.yaml"])
def test_a_page_is_no_policy_server_that_must_have_a_model(name):
    jobs = {one["job_name"]: str(one) for one in read(MONITORING / name)["scrape_configs"]}
    assert ":8000" in jobs["rlcar-server"]
    assert ":8001" not in jobs["rlcar-server"]


@NEEDS["promtool"]
def test_the_rules_are_valid():
    checked("promtool", "check", "rules", *map(str, RULE_FILES))


@NEEDS["promtool"]
@pytest.mark.parametrize("file", UNIT_TEST_FILES, ids=lambda file: file.stem)
def test_each_alert_stays_silent_fires_and_clears(file):
    checked("promtool", "test", "rules", str(file))


@NEEDS["promtool"]
@pytest.mark.parametrize("name", ["prometheus.yaml", "prometheus-host.yaml"])
def test_the_configuration_of_prometheus_is_valid(name):
    checked("promtool", "check", "config", name)


@NEEDS["amtool"]
def test_the_configuration_of_alertmanager_is_valid():
    checked("amtool", "check-config", "alertmanager.yaml")


@NEEDS["amtool"]
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=ServerDown severity=critical", "on-call"),
        ("alertname=DiskSpaceLow severity=warning", "operators"),
        ("alertname=LearnerStarved severity=info", "operators"),
        ("alertname=Foreign", "operators"),
    ],
)
def test_who_hears_of_an_alert(labels, receiver):
    checked(
        *("amtool", "config", "routes", "test", "--config.file=alertmanager.yaml"),
        *(f"--verify.receivers={receiver}", *labels.split()),
    )


def test_no_secret_is_in_a_configuration():
    for file in MONITORING.rglob("*.yaml"):
        found = re.findall(
            r"(?m)^\s*-?\s*(\w*(?:password|secret|token)\w*): *\S+", file.read_text()
        )
        assert [name for name in found if not name.endswith("_file")] == [], file


@pytest.mark.parametrize("name", alerts())
def test_each_alert_has_unit_tests_that_stay_silent_fire_and_clear(name):
    states = unit_tests()[name]
    assert len(states) % 3 == 0
    assert states == [False, True, False] * (len(states) // 3)


@pytest.mark.parametrize("name", alerts())
def test_each_alert_says_what_happens_and_where_to_read_on(name):
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["summary"].endswith(".")
    assert len(annotations["summary"]) < 120
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"docs/runbooks/{name}.md"
    text = (ROOT / annotations["runbook_url"]).read_text()
    parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert parts == ["Meaning", "Impact", "Automatic reaction", "Diagnosis", "Remedy"]
    assert "```shell\n" in text


def test_every_runbook_belongs_to_an_alert():
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")} - {"index"}
    assert pages == alerts().keys()


def test_commands_in_runbooks_exist():
    verbs = {verb.name.removeprefix("rlcar ") for verb in commands.verbs()}
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for words in re.findall(r"(?:`|^)rlcar ((?:[a-z]+ ?)+)", page.read_text(), re.MULTILINE):
            first, *rest = words.split()
            is_group = first not in verbs and any(verb.startswith(f"{first} ") for verb in verbs)
            name = f"{first} {rest[0]}" if is_group and rest else first
            assert is_group and not rest or name in verbs, f"{page.name}: rlcar {words}"


@pytest.mark.parametrize("name", alerts())
def test_the_metrics_of_an_alert_are_exported_by_something(name):
    names = metric_names(alerts()[name]["expr"])
    assert names
    assert {one for one in names - known_metrics() if not one.startswith(FOREIGN)} == set()


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_the_rules_for_kubernetes_are_the_same(file):
    path = MONITORING / "kubernetes" / f"prometheusrule-{file.stem}.yaml"
    wanted = prometheus_rule(file)
    if os.environ.get("RLCAR_UPDATE_GOLDEN"):
        path.write_text(wanted)
    assert path.read_text() == wanted, "run: make golden"


def prometheus_rule(file: Path) -> str:
    """The object of the Prometheus operator for a file of rules."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"rlcar-{file.stem}",
            "labels": {
                "app.kubernetes.io/name": "rlcar",
                "app.kubernetes.io/component": "monitoring",
                "app.kubernetes.io/part-of": "rlcar",
            },
        },
        "spec": read(file),
    }
    head = f"# Made from ../rules/{file.name} by `make golden`; a test keeps both equal.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=120)
