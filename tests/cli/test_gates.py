"""`rlcar models gate` and the gates of `rlcar rollout start`: no traffic before they are passed."""

import json

import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.errors import ConfigError, UserError
from rlcar.registry import Registry
from serve.delivery import events
from serve.delivery.operator import Operator
from serve.delivery.specification import read_specification
from serve.policy.policy import try_model
from tests.support.hand_made_versions import publish_follower

SHORT = "simulation: {tracks: 8, worlds: [classic]}"


@pytest.fixture
def folder(tmp_path):
    """Version 1, the champion, is slower than version 2; version 3 is as slow."""
    for throttle in (0.15, 0.2, 0.15):
        publish_follower(tmp_path / "models", throttle)
    Registry(tmp_path / "models").promote(1)
    return tmp_path / "models"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text(f"strategy: {{blueGreen: {{}}}}\ngates: {{{SHORT}}}")
    return path


def run(folder, *words):
    words = [*map(str, words), "--registry", str(folder), "--out", str(folder.parent / "gates")]
    return CliRunner().invoke(app, words)


def entries(folder):
    return Operator(Registry(folder), "champion", "me").read().entries


def test_a_rollout_begins_when_its_gates_are_passed_and_its_history_tells_their_numbers(
    folder, file
):
    begun = run(folder, "rollout", "start", 2, file)
    assert begun.exit_code == 0, begun.output
    (entry,) = entries(folder)
    (gate,) = entry.event.gates
    assert gate.gate == "simulation"
    assert 0.0 < gate.numbers["low"] <= gate.numbers["mean"] <= gate.numbers["high"]
    history = CliRunner().invoke(app, ["rollout", "history", "--registry", str(folder)])
    assert "gate simulation passed: improvement" in " ".join(history.output.split())
    written = folder.parent / "gates" / "version-2-over-1" / "simulation-gate.json"
    assert json.loads(written.read_text())["passed"] is True


def test_a_rollout_whose_candidate_fails_a_gate_does_not_begin(folder, file):
    refused = run(folder, "rollout", "start", 3, file)
    assert refused.exit_code == 1
    said = " ".join(refused.output.split())
    assert "the rollout of version 3 does not begin, because it has not passed 1 of 1 gates" in said
    assert "the whole interval must be above 0" in said
    assert "the figures are in" in said
    assert entries(folder) == []
    assert Registry(folder).aliases() == {"champion": 1}


def test_the_cheap_checks_come_before_the_gates(folder, file):
    begun = run(folder, "rollout", "start", 1, file)
    assert isinstance(begun.exception, UserError)
    assert "version 1 is champion already" in str(begun.exception)
    assert not (folder.parent / "gates").exists()


def test_a_program_that_runs_no_gates_cannot_begin_such_a_rollout(folder, file):
    operator = Operator(Registry(folder), "champion", "a server")
    with pytest.raises(ConfigError, match="rlcar rollout start VERSION FILE, which does"):
        operator.start(2, read_specification(file), try_model)
    assert entries(folder) == []


def test_a_comparison_with_a_version_that_is_no_longer_the_champion_does_not_count(folder, file):
    registry = Registry(folder)
    operator = Operator(registry, "champion", "me")

    def slow_gates(candidate, stable):
        registry.promote(3)
        return [events.PassedGate("simulation", "better", {"low": 1.0})]

    with pytest.raises(UserError, match="champion moved to version 3 while version 2 was compared"):
        operator.start(2, read_specification(file), try_model, pass_gates=slow_gates)
    assert entries(folder) == []


def test_entries_without_gates_are_as_before(folder):
    """Servers of an earlier version read them, and this one reads theirs."""
    assert (
        CliRunner().invoke(app, ["rollout", "start", "2", "--registry", str(folder)]).exit_code == 0
    )
    (entry,) = Registry(folder).rollouts("champion").read()
    assert entry.content.keys() == {"type", "rollout", "stable", "candidate", "specification"}


def test_a_version_is_compared_without_a_rollout(folder):
    words = ("models", "gate", 2, "--world", "classic", "--tracks", 8)
    passed = run(folder, *words, "--json")
    assert passed.exit_code == 0, passed.output
    assert json.loads(passed.stdout)["simulation"]["passed"] is True
    slower = run(folder, "models", "gate", 1, 2, *words[3:])
    assert slower.exit_code == 1
    assert "failed" in slower.output
    nothing = run(folder, "models", "gate", 2, "--no-simulate")
    assert "name recorded traffic with --data FOLDER" in str(nothing.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tracks", 4096, "--seeds", 64), "4096 tracks with 64 seeds are 262,144 laps"),
        (("--world", ""), "simulation.worlds.0 = '': String should have at least 1 character"),
        (("--world", "classic") * 21, "simulation.worlds = ['classic',"),
        (("--allow-unknown",), "--allow-unknown is about recorded traffic, and there is none"),
    ],
)
def test_a_mistake_in_the_options_is_no_failed_gate(folder, words, said):
    result = run(folder, "models", "gate", 2, *words)
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ("{}", "gates need simulation, offPolicyEvaluation or both"),
        ("{simulation: {margn: 1}}", "did you mean 'margin'?"),
        ("{simulation: {margin: .nan}}", "gates.simulation.margin = nan"),
        ("{simulation: {worlds: [grandprix]}}", "unknown world 'grandprix'; did you mean"),
        ("{offPolicyEvaluation: {allowUnknown: true}}", "offPolicyEvaluation needs data"),
        ("{offPolicyEvaluation: {data: nowhere}}", "nowhere"),
    ],
)
def test_a_mistake_in_the_gates_is_one_sentence(folder, file, gates, said):
    file.write_text(f"strategy: {{blueGreen: {{}}}}\ngates: {gates}")
    result = run(folder, "rollout", "start", 2, file)
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)
    assert entries(folder) == []
