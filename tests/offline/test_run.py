import json

import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.errors import UserError
from rlcar.offline.plan import candidates_for
from rlcar.registry import Registry
from rlcar.sim import SPEC
from rlcar.types import Spec
from tests.support.recordings import record

TINY = (
    *("--mode", "test", "--updates", "100", "--algorithm", "bc", "--algorithm", "iql"),
    *("--set", "training.env_steps=2048", "--set", "training.evaluate_every_env_steps=2048"),
)


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """Selects among two tiny trainings, twice; returns the folder and the first result."""
    root = tmp_path_factory.mktemp("selection")
    record(root / "data")
    words = ["offline", str(root / "data"), "--out", str(root / "out"), *TINY]
    words += ["--registry", str(root / "models")]
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    second = CliRunner().invoke(app, words, catch_exceptions=False)
    assert second.exit_code == 0, second.output
    assert "training bc" not in second.output
    return root, json.loads((root / "out" / "selection.json").read_text())


def test_the_better_policy_is_kept_and_reported(selected):
    root, result = selected
    candidates = result["candidates"]
    assert list(candidates) == ["bc", "iql"]
    costs = {name: candidate["cost"] for name, candidate in candidates.items()}
    assert costs[result["chosen"]] == min(costs.values())
    report = (root / "out" / "report.md").read_text()
    assert f"Kept: **{result['chosen']}**" in report
    assert result["data_sha256"] in report
    for picture in ("selection.png", "ope.png"):
        assert (root / "out" / picture).exists()
        assert f"({picture})" in report


def test_the_published_version_names_its_data_and_is_published_once(selected):
    root, result = selected
    versions = Registry(root / "models").versions()
    assert [version.number for version in versions] == [result["published"]]
    lineage = versions[0].metadata["lineage"]
    assert lineage["data"] == result["data_sha256"]
    assert lineage["run"] == f"out-{result['chosen']}"


def test_a_folder_keeps_its_plan(selected):
    root, _ = selected
    words = ["offline", str(root / "data"), "--out", str(root / "out"), *TINY, "--seed", "1"]
    refused = CliRunner().invoke(app, [*words, "--registry", str(root / "models")])
    assert "holds a selection with other settings" in str(refused.exception)


def test_the_baseline_comes_first_and_unfit_algorithms_are_refused():
    assert candidates_for(SPEC)[0] == "bc"
    assert candidates_for(SPEC, ["iql", "bc"]) == ["bc", "iql"]
    assert "iql" not in candidates_for(Spec(4, 2, is_discrete=True))
    with pytest.raises(UserError, match="ppo cannot learn from this data: choose among"):
        candidates_for(SPEC, ["ppo"])
