import json

import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.registry import Registry
from tests.support.untrained_run import untrained


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("recorded") / "data")
    words = ["data", "record", folder, "careful@0.3", "longest_ray@0.1-0.4"]
    size = ["--transitions", "4000", "--cars", "8", "--track-count", "16"]
    CliRunner().invoke(app, [*words, *size], catch_exceptions=False)
    return folder


def test_runs_versions_and_drivers_are_evaluated(tmp_path, data):
    run = untrained("sac")
    Registry(tmp_path / "models").publish(run)
    words = ["ope", str(run), "1", "careful", "--data", data, "--updates", "100"]
    places = ["--registry", str(tmp_path / "models"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, *places], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "ope.json").read_text())
    assert set(report["policies"]) == {str(run), "1", "careful"}
    assert {one["verdict"] for one in report["policies"].values()} <= {"better", "worse", "unknown"}
    assert len(report["data_sha256"]) == 64
    assert report["coverage"]["transitions"]
    assert (tmp_path / "out" / "ope.png").stat().st_size > 1000
    # A run and its published version are the same policy.
    first, second = report["policies"][str(run)], report["policies"]["1"]
    assert first["outside_support"] == second["outside_support"]
    assert "careful" in result.output


def test_policies_are_compared_with_a_baseline(tmp_path, data):
    words = ["ope", "careful", "longest_ray", "--baseline", "careful", "--data", data]
    words += ["--updates", "100", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "the baseline" in result.output
    report = json.loads((tmp_path / "ope.json").read_text())
    assert set(report["policies"]) == {"longest_ray"}
    assert report["baseline"]["name"] == "careful"


def test_a_baseline_alone_is_refused(tmp_path, data):
    words = ["ope", "careful", "--baseline", "careful", "--data", data, "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert str(result.exception).startswith("careful is the baseline: name another policy")


def test_json_for_programs(tmp_path, data):
    words = ["ope", "careful", "--data", data, "--updates", "100", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert set(json.loads(result.stdout)["policies"]) == {"careful"}


def test_what_no_policy_is_called_is_one_sentence(tmp_path, data):
    words = ["ope", "nobody", "--data", data, "--registry", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert "there is no driver 'nobody'" in str(result.exception)
