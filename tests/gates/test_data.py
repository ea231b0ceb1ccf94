"""The gate of recorded traffic lets pass what the data show to be better."""

import json

import pydantic
import pytest

from rlcar.datasets import World
from rlcar.errors import DatasetError
from rlcar.gates.data import by_verdict, data_gate
from rlcar.gates.run import run_gates
from rlcar.gates.settings import DataGate, Gates, SimulationGate
from rlcar.registry import Registry
from rlcar.types import Spec
from tests.support.hand_made_versions import publish_follower
from tests.support.recordings import record

FEW = DataGate(updates=100, transitions=1000)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gates") / "models"
    for throttle in (0.15, 0.2):
        publish_follower(folder, throttle)
    return Registry(folder).open(2), Registry(folder).open(1)


@pytest.mark.parametrize(
    ("verdict", "allow_unknown", "passed"),
    [
        ("better", False, True),
        ("unknown", False, False),
        ("unknown", True, True),
        ("worse", False, False),
        ("worse", True, False),
    ],
)
def test_only_better_passes_unless_the_file_allows_unknown(verdict, allow_unknown, passed):
    result = by_verdict(verdict, "because", allow_unknown, {})
    assert result.passed is passed
    assert result.reason.startswith(f"{verdict} (because)")


def test_a_verdict_on_recorded_traffic_is_written_with_its_figures(versions, tmp_path):
    """600 random transitions tell nothing about either version."""
    candidate, stable = versions
    data, out = record(tmp_path / "data"), tmp_path / "out"
    result = data_gate(candidate, stable, data, FEW, out)
    assert not result.passed
    assert (result.figures["verdict"], result.figures["episodes"]) == ("unknown", 30)
    assert json.loads((out / "off-policy-gate.json").read_text())["passed"] is False
    estimated = json.loads((out / "ope.json").read_text())
    assert estimated["baseline"]["name"] == "version 1"
    assert list(estimated["policies"]) == ["version 2"]
    assert (out / "ope.png").exists()
    lineage = {**candidate.version.metadata["lineage"], "data": data.fingerprint}
    learned = candidate._replace(
        version=candidate.version._replace(
            metadata={**candidate.version.metadata, "lineage": lineage}
        )
    )
    gates = Gates(offPolicyEvaluation=FEW.model_copy(
        update={"data": str(data.folder), "allow_unknown": True}))  # fmt: skip
    allowed = run_gates(learned, stable, gates, out)
    assert list(allowed) == ["offPolicyEvaluation"]
    assert allowed["offPolicyEvaluation"].passed
    warnings = allowed["offPolicyEvaluation"].figures["warnings"]
    assert "the candidate learned from these episodes" in warnings[-1]


def test_data_of_another_world_are_refused(versions, tmp_path):
    data = record(tmp_path / "data", world=World(), spec=Spec(3, 1))
    with pytest.raises(DatasetError, match="name a policy of the same world"):
        data_gate(*versions, data, FEW, tmp_path / "out")


def test_a_folder_without_data_is_refused_before_the_laps(versions, tmp_path):
    gates = Gates(
        simulation=SimulationGate(), offPolicyEvaluation=DataGate(data=str(tmp_path / "missing"))
    )
    with pytest.raises(DatasetError, match="missing"):
        run_gates(*versions, gates, tmp_path / "out", say=pytest.fail)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "gates need simulation, offPolicyEvaluation or both"),
        ({"offPolicyEvaluation": {}}, "offPolicyEvaluation needs data"),
        ({"simulation": {"tracks": 4096, "seeds": 3}}, "12,288 laps side by side"),
    ],
)
def test_incomplete_gates_are_refused(tree, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        Gates.model_validate(tree)
