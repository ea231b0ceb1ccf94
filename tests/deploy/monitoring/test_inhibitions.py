"""An alert suppresses those that follow from it, and no others, wherever it runs."""

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.processes import free_port
from tests.deploy.monitoring.labels import DEPLOYMENTS, labels_of_alert
from tests.deploy.monitoring.rules import MONITORING, UNIT_TEST_FILES, alerts, read
from tests.deploy.monitoring.stack import (
    alertmanager_config,
    is_ready,
    needs_programs,
    running_program,
)
from tests.support.waiting import wait_until

INHIBITIONS = read(MONITORING / "alertmanager.yaml")["inhibit_rules"]


def named(matchers: list[str]) -> list[str]:
    """The alerts that the matchers of an inhibition name."""
    (matcher,) = matchers
    found = re.fullmatch(r'alertname=~?"(.+)"', matcher)
    assert found, matcher
    names = found[1].split("|")
    assert set(names) <= alerts().keys()
    return names


def pairs() -> list[tuple[str, str, list[str]]]:
    """Source, target and the labels that must be equal, of every inhibition."""
    return [
        (source, target, rule["equal"])
        for rule in INHIBITIONS
        for source in named(rule["source_matchers"])
        for target in named(rule["target_matchers"])
    ]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize(("source", "target", "equal"), pairs())
def test_both_alerts_of_an_inhibition_carry_the_labels_that_it_compares(
    source, target, equal, deployment
):
    # Alertmanager takes two alerts that lack a label for equal, and those of which one has it for
    # different.
    for alert in (source, target):
        for labels in labels_of_alert(alert, deployment):
            assert set(equal) <= labels, f"{alert} carries {sorted(labels)} on {deployment}"


def samples() -> list[Any]:
    return [
        pytest.param(one["alertname"], set(expected["exp_labels"]), id=one["alertname"])
        for file in UNIT_TEST_FILES
        for test in read(file)["tests"]
        for one in test["alert_rule_test"]
        for expected in one["exp_alerts"]
    ]


@pytest.mark.parametrize(("alert", "carried"), samples())
def test_the_derived_labels_are_those_that_promtool_finds(alert, carried):
    assert carried in labels_of_alert(alert, "hosts")


@contextlib.contextmanager
def running_alertmanager(folder: Path) -> Iterator[str]:
    port = free_port()
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(alertmanager_config(free_port())))
    url = f"http://127.0.0.1:{port}"
    with running_program(
        folder,
        "prometheus-alertmanager",
        f"--config.file={folder}/alertmanager.yaml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ):
        wait_until(lambda: is_ready(f"{url}/-/ready"))
        yield url


def fired() -> Iterator[tuple[dict[str, str], bool]]:
    """Alerts of each inhibition and deployment, and whether Alertmanager must suppress them.

    Each source comes with a target of the same run, server or campaign, and one of another.
    """
    for deployment in DEPLOYMENTS:
        for source, target, _ in pairs():
            place = f"{deployment} {source} {target}"
            here = [
                sorted(labels_of_alert(one, deployment), key=sorted) for one in (source, target)
            ]
            for number, labels in enumerate(here[0]):
                yield named_alert(source, labels, f"{place} {number}"), False
                for target_labels in here[1]:
                    yield named_alert(target, target_labels, f"{place} {number}"), True
                    different = named_alert(target, target_labels, f"{place} {number} elsewhere")
                    yield different, False


def named_alert(name: str, labels: Any, value: str) -> dict[str, str]:
    return dict.fromkeys(labels - {"severity"}, value) | {"alertname": name}


@needs_programs
def test_alertmanager_suppresses_what_follows_from_another_alert_and_nothing_else(tmp_path):
    wanted = {json.dumps(labels, sort_keys=True): is_muted for labels, is_muted in fired()}
    with running_alertmanager(tmp_path) as url:
        body = json.dumps([{"labels": json.loads(labels)} for labels in wanted]).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(f"{url}/api/v2/alerts", body, headers), timeout=30
        ).close()

        def found() -> dict[str, bool]:
            with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=30) as answer:
                return {
                    json.dumps(one["labels"], sort_keys=True): bool(one["status"]["inhibitedBy"])
                    for one in json.load(answer)
                }

        with contextlib.suppress(AssertionError):
            wait_until(lambda: found() == wanted, 20)
        assert found() == wanted
