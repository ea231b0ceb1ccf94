"""Dashboards are complete, consistent, and ask for metrics that something exports."""

import json
import re
from typing import Any

import jsonschema
import promql_parser
import pytest

from tests.deploy.monitoring.labels import labels_of_query
from tests.deploy.monitoring.queries import expressions, panels, with_variables
from tests.deploy.monitoring.rules import DASHBOARDS
from tests.deploy.monitoring.test_rules import FOREIGN, known_metrics, metric_names

# What we use of Grafana's dashboard format (schema version 39), and what we demand of each panel.
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "type": {"enum": ["row", "timeseries", "stat", "heatmap"]},
        "title": {"type": "string", "minLength": 3},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "properties": {
                "x": {"type": "integer", "minimum": 0, "maximum": 23},
                "w": {"type": "integer", "minimum": 1, "maximum": 24},
            },
        },
        "description": {"type": "string", "pattern": r"\.$"},
        "datasource": {"const": {"type": "prometheus", "uid": "${datasource}"}},
        "fieldConfig": {
            "type": "object",
            "properties": {
                "defaults": {
                    "type": "object",
                    "required": ["unit"],
                    "properties": {
                        "unit": {
                            "enum": [
                                *("short", "percentunit", "percent", "s", "bytes"),
                                *("ops", "reqps", "none"),
                            ]
                        }
                    },
                }
            },
            "required": ["defaults", "overrides"],
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["refId", "expr", "legendFormat"]},
        },
    },
    "if": {"properties": {"type": {"not": {"const": "row"}}}},
    "then": {"required": ["description", "datasource", "fieldConfig", "options", "targets"]},
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "description", "tags", "schemaVersion", "templating", "panels"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "title": {"type": "string", "pattern": "^rlcar: "},
        "tags": {"const": ["rlcar"]},
        "schemaVersion": {"const": 39},
        "editable": {"const": False},
        "refresh": {"const": "30s"},
        "panels": {"type": "array", "minItems": 5, "items": PANEL},
    },
}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_has_the_structure_that_grafana_reads(file):
    dashboard = json.loads(file.read_text())
    jsonschema.validate(dashboard, DASHBOARD)
    assert dashboard["uid"] == file.stem
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_do_not_overlap(file):
    taken = set()
    for panel in json.loads(file.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_variable_of_a_dashboard_is_used_and_each_used_one_exists(file):
    text = file.read_text()
    names = {one["name"] for one in json.loads(text)["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == names
    assert "datasource" in names


@pytest.mark.parametrize("expression", sorted(expressions()))
def test_a_query_is_valid_and_asks_for_exported_metrics(expression):
    promql_parser.parse(with_variables(expression))
    names = metric_names(with_variables(expression))
    assert {one for one in names - known_metrics() if not one.startswith(FOREIGN)} == set()


def targets_of_panels() -> list[Any]:
    return [
        pytest.param(target, id=f"{file.stem}: {panel['title']} {target['refId']}")
        for file in DASHBOARDS
        for panel in panels(file)
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("target", targets_of_panels())
def test_the_legend_tells_the_series_of_a_query_apart(target):
    """With several runs, servers and exporters: no series without a name, and none named twice."""
    # A number has no labels, and neither has `or vector(0)`.
    found = labels_of_query(with_variables(target["expr"]), "Kubernetes") - {frozenset()}
    named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert found == ({frozenset(named)} if named else set())


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_all_values_of_a_variable_leave_out_series_without_its_label(file):
    for variable in json.loads(file.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["allValue"] == ".+"


@pytest.mark.parametrize("expression", sorted(expressions()))
def test_a_query_selects_no_series_of_other_programs(expression):
    """The Prometheus of a cluster scrapes much more than rlcar."""
    for selected in re.findall(r"\b(?:up|process_\w+)\b(?:{[^}]*})?", expression):
        assert 'job=~"rlcar-' in selected


def test_there_are_four_dashboards():
    assert [file.stem.removeprefix("rlcar-") for file in DASHBOARDS] == [
        *("campaigns", "cluster", "serving", "training")
    ]
    assert all(list(panels(file)) for file in DASHBOARDS)
