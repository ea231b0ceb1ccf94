"""Rollout files: what is read, and the one sentence about what is wrong."""

import math

import pytest

from rlcar.errors import ConfigError
from serve.delivery.specification import (
    default_specification,
    parse_condition,
    parse_specification,
    read_specification,
)

EXAMPLE = """
strategy:
  canary:
    steps:
    - shadow: {weight: 100, duration: 5m}
    - setWeight: 10
    - pause: {duration: 90s}
    - pause: {}
    - analysis:
        metrics:
        - name: answers
          value: fallbackShare
          successCondition: '<= 0.01'
          failureCondition: '> 0.05'
          interval: 10s
          count: 6
          failureLimit: 1
          consecutiveErrorLimit: 4
          inconclusiveLimit: 2
          dryRun: true
rollback:
  faultyShare: 0.02
"""


def canary(*steps):
    return {"strategy": {"canary": {"steps": list(steps)}}}


def test_a_file_in_the_vocabulary_of_argo(tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text(EXAMPLE)
    specification = read_specification(path)
    shadow, weight, pause, approval, analysis = specification.steps()
    assert (shadow.shadow.duration, weight.set_weight) == (300.0, 10.0)
    assert (pause.pause.duration, approval.pause.duration) == (90.0, None)
    (metric,) = analysis.analysis.metrics
    assert (metric.interval, metric.count, metric.inconclusive_limit) == (10.0, 6, 2)
    assert metric.dry_run
    assert specification.rollback.faulty_share == 0.02
    assert parse_specification(specification.tree()) == specification


def _kinds(strategy):
    steps = parse_specification({"strategy": strategy}).steps()
    return [next(iter(step.model_dump(exclude_none=True))) for step in steps]


def test_the_name_of_a_value_in_older_files_and_journals_is_read():
    metric = {"name": "acts", "value": "steeringDifferenceShare", "failureCondition": "> 0.5"}
    steps = parse_specification(canary({"analysis": {"metrics": [metric]}})).steps()
    assert steps[0].analysis.metrics[0].value == "actionDifferenceShare"


@pytest.mark.parametrize(
    ("strategy", "kinds"),
    [
        ({"blueGreen": {}}, ["set_weight"]),
        (
            {"blueGreen": {"autoPromotionEnabled": False, "watch": "1m"}},
            ["pause", "set_weight", "pause"],
        ),
        ({"ab": {"weight": 30}}, ["set_weight", "winner"]),
        ({"shadow": {"duration": "1h"}}, ["shadow"]),
    ],
)
def test_the_other_strategies_are_steps_too(strategy, kinds):
    assert _kinds(strategy) == kinds


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (canary({"setWieght": 10}), "unknown setting 'strategy.canary.steps.0.setWieght'; did yo"),
        (canary({"setWeight": 101}), "steps.0.setWeight = 101: Input should be less than or equal"),
        (canary({"setWeight": math.nan}), "steps.0.setWeight = nan: Input should be a finite numb"),
        (canary({"setWeight": -1}), "greater than or equal to 0"),
        (canary({"pause": {"duration": "10x"}}), "10m, 2h or 1d"),
        (canary({"setWeight": 1, "pause": {}}), "not setWeight and pause"),
        (canary({}), "not nothing"),
        (canary(), "at least 1 item"),
        ({"strategy": {"canry": {}}}, "did you mean 'canary'?"),
        ({"strategy": {"ab": {}, "blueGreen": {}}}, "not blueGreen and ab"),
        ({}, "strategy: missing"),
        ({"strategy": {"ab": {"maxPairs": 2501}}}, "less than or equal to 2500"),
        (
            canary({"analysis": {"metrics": [{"name": "a", "value": "errorShare"}]}}),
            "give successCondition or failureCondition",
        ),
        (canary({"pause": {}}) | {"rollback": {"faultyShare": 0.001}}, "must be above usualShare"),
    ],
)
def test_a_mistake_is_one_sentence(tree, said):
    with pytest.raises(ConfigError) as caught:
        parse_specification(tree)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text("strategy: {canary: {steps: [{setWeight: 10}, {setWeight: 1000}]}}")
    with pytest.raises(ConfigError, match=r"rollout\.yaml: .*setWeight = 1000"):
        read_specification(path)


def test_conditions():
    assert parse_condition("<= 0.5").holds(0.5)
    assert not parse_condition("< 0.5").holds(0.5)
    assert parse_condition(">=0.5").holds(0.5)
    assert parse_condition("> -1e-3").holds(0.0)
    with pytest.raises(ValueError, match="compares with a number"):
        parse_condition("result > 1")


def test_without_a_file_there_are_two_stages():
    assert [step.set_weight for step in default_specification().steps()] == [10.0, None, 50.0, None]
