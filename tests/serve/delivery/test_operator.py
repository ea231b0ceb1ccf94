"""People start, hold and end rollouts, and the registry remembers everything."""

import json
import os
import threading

import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.errors import RegistryError, UserError
from rlcar.registry import Registry
from rlcar.registry.aliases import Aliases
from rlcar.registry.shared_counts import MAX_COUNTS_BYTES
from rlcar.registry.store import CLAIM_FOLDER
from serve.delivery import events
from serve.delivery.operator import Operator
from serve.delivery.specification import default_specification, parse_specification
from serve.delivery.state import rolled_back_versions
from serve.policy.policy import try_model
from tests.serve.served import publish


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    publish(folder, seed=3, alias=None)
    return folder


@pytest.fixture
def operator(folder):
    return Operator(Registry(folder), "champion", "me")


def start(operator, name=2, **options):
    return operator.start(name, default_specification(), try_model, **options)


def test_a_promotion_by_hand_moves_the_alias(folder, operator):
    state = start(operator)
    assert (state.stable, state.candidate, state.weight) == (1, 2, 10.0)
    assert Registry(folder).aliases() == {"champion": 1, "candidate": 2}
    assert operator.promote("it is good").phase == "Healthy"
    assert Registry(folder).aliases()["champion"] == 2
    assert operator.undo("it is not").phase == "Degraded"
    assert Registry(folder).aliases()["champion"] == 1
    assert rolled_back_versions(operator.read().entries) == {2: "it is not"}
    with pytest.raises(UserError, match=r"was rolled back before \(it is not\): add --again"):
        start(operator)
    assert start(operator, is_again=True).phase == "Progressing"


def test_a_promotion_that_was_killed_before_the_alias_moved_is_finished(folder, operator):
    start(operator)
    operator.command(lambda _: events.Promoting("by a process that dies now"))
    assert Registry(folder).aliases()["champion"] == 1
    other = Operator(Registry(folder), "champion", "someone else")
    assert other.finish().phase == "Healthy"
    assert other.finish() == operator.read().state  # once more changes nothing
    assert Registry(folder).aliases()["champion"] == 2


def test_an_operator_that_reads_on_agrees_with_a_new_one_after_an_entry_is_skipped(folder):
    operator = Operator(Registry(folder), "champion", "me")
    start(operator)
    assert operator.pause() == operator.read().state
    late = folder / "rollouts/champion/00000002.json"
    data = late.read_bytes()
    late.unlink()  # as for a writer that does not see it yet, and takes its writer for dead
    claim = late.with_name(f"{late.name}{CLAIM_FOLDER}") / "claim-1"
    claim.parent.mkdir()
    claim.write_text("claimed\n")
    os.utime(claim, (1.0, 1.0))
    other = Operator(Registry(folder), "champion", "someone else")
    other.abort("enough")
    late.write_bytes(data)
    assert [entry.number for entry in operator.read().entries] == [1, 3]
    assert operator.read() == Operator(Registry(folder), "champion", "new").read()
    assert operator.read().state.phase == "Degraded"


def test_of_two_operators_who_start_at_once_one_wins(folder):
    started, refused = [], []

    def run(number):
        try:
            started.append(start(Operator(Registry(folder), "champion", "x"), number))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in (2, 3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(started) == len(refused) == 1
    assert f"version {started[0].candidate} is still Progressing" in refused[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (1, "version 1 is champion already"),
        ("champion", "version 1 is champion already"),
        (9, "there is no version 9"),
    ],
)
def test_a_candidate_that_cannot_be_is_one_sentence(operator, name, said):
    with pytest.raises(UserError, match=said):
        start(operator, name)
    assert operator.read().entries == []


def test_a_registry_without_a_champion_says_how_to_set_it(tmp_path):
    publish(tmp_path / "models", alias=None)
    with pytest.raises(UserError, match="rlcar models promote VERSION --alias champion"):
        start(Operator(Registry(tmp_path / "models"), "champion", "me"), 1)


def test_a_damaged_candidate_is_refused(folder, operator):
    path = folder / "versions/00000002/policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RegistryError, match="version 2 is damaged"):
        start(operator)
    assert operator.read().entries == []


def test_a_retry_begins_again_with_other_sessions(operator):
    first = start(operator)
    operator.abort("a look at the logs")
    again = operator.retry()
    assert (again.phase, again.candidate, again.step) == ("Progressing", 2, 0)
    assert again.rollout != first.rollout


def test_a_retry_of_a_version_that_was_rolled_back_says_so(operator):
    start(operator)
    operator.command(lambda _: events.Aborted("it brakes", is_rollback=True))
    with pytest.raises(UserError, match=r"was rolled back before \(it brakes\): add --again"):
        operator.retry()
    assert operator.retry(is_again=True).phase == "Progressing"


GATED = {"strategy": {"blueGreen": {}}, "gates": {"simulation": {}}}


@pytest.mark.parametrize(
    ("is_promoted", "said"),
    [(False, r"was rolled back before \(it brakes\): add --again"), (True, "is champion already")],
)
def test_what_happens_during_the_gates_counts(folder, operator, is_promoted, said):
    def slow_gates(*_):
        other = Operator(Registry(folder), "champion", "someone else")
        start(other)
        if is_promoted:
            other.promote("it is good")
        else:
            other.command(lambda _: events.Aborted("it brakes", is_rollback=True))
        return [events.PassedGate("simulation", "better", {"low": 1.0})]

    with pytest.raises(UserError, match=said):
        operator.start(2, parse_specification(GATED), try_model, pass_gates=slow_gates)
    assert sum(isinstance(one.event, events.Started) for one in operator.read().entries) == 1


def test_a_rollback_while_a_retry_is_written_counts(folder, operator, monkeypatch):
    start(operator)
    operator.abort("a look at the logs")
    other, write = Operator(Registry(folder), "champion", "someone else"), Operator.write

    def overtaken(*args):
        monkeypatch.undo()
        other.retry()
        other.command(lambda _: events.Aborted("it brakes", is_rollback=True))
        return write(*args)

    monkeypatch.setattr(Operator, "write", overtaken)
    with pytest.raises(UserError, match=r"was rolled back before \(it brakes\): add --again"):
        operator.retry()
    assert operator.read().state.phase == "Degraded"


def test_a_rollout_begins_although_the_alias_of_the_candidate_cannot_move(
    folder, operator, monkeypatch, caplog
):
    move = Aliases.move

    def refuse(aliases, alias, *args):
        if alias == "candidate":
            raise RegistryError("the disk is full")
        move(aliases, alias, *args)

    monkeypatch.setattr(Aliases, "move", refuse)
    assert start(operator).phase == "Progressing"
    assert "the alias candidate could not be moved to version 2: the disk is full" in caplog.text
    assert Registry(folder).aliases() == {"champion": 1}


def test_a_rollout_does_not_begin_before_the_alias_has_moved_back(folder, operator):
    start(operator)
    operator.promote("it is good")
    operator.command(lambda _: events.Undone("by a process that dies now"))
    with pytest.raises(UserError, match="has yet to move to version 1 .*rlcar rollout abort"):
        start(operator, 3)
    assert operator.finish().phase == "Degraded"
    assert Registry(folder).aliases()["champion"] == 1
    assert start(operator, 3).stable == 1


def test_an_undo_to_a_version_that_is_gone_is_refused(folder, operator):
    start(operator)
    operator.promote("it is good")
    Registry(folder).delete(1)
    with pytest.raises(
        UserError, match=r"champion cannot move to version 1 \(there is no version 1"
    ):
        operator.undo("it is not")
    assert operator.read().state.phase == "Healthy"
    operator.command(lambda _: events.Undone("by a program that does not look"))
    state = operator.finish()  # the move cannot succeed, so it is dropped
    assert (state.phase, state.pending_alias) == ("Healthy", None)
    assert "cannot move to version 1" in state.message
    assert start(operator, 3).phase == "Progressing"


def test_a_promotion_to_a_damaged_version_is_refused(folder, operator):
    start(operator)
    path = folder / "versions/00000002/policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="champion cannot move to version 2 .*is damaged"):
        operator.promote("it is good")
    assert operator.read().state.phase == "Progressing"


def test_a_move_of_the_alias_that_somebody_has_overtaken_is_dropped(folder, operator):
    start(operator)
    operator.command(lambda _: events.Promoting("by a process that dies now"))
    Registry(folder).promote(3)
    state = operator.finish()
    assert (state.phase, state.message) == ("Degraded", "champion moved to version 3 meanwhile")
    assert Registry(folder).aliases()["champion"] == 3


def test_a_promotion_whose_alias_has_not_moved_can_be_aborted(folder, operator):
    start(operator)
    operator.command(lambda _: events.Promoting("by a process that dies now"))
    Registry(folder).promote(2)  # it died between the alias and the journal
    assert operator.abort("too slow").phase == "Degraded"
    assert Registry(folder).aliases()["champion"] == 1
    assert start(operator, 3).stable == 1


@pytest.mark.parametrize(("kind", "method"), [(Registry, "open"), (Aliases, "move")])
def test_a_slow_mover_does_not_repeat_a_promotion_that_was_undone(
    folder, operator, monkeypatch, kind, method
):
    start(operator)
    operator.command(lambda _: events.Promoting("by a process that is slow now"))
    other, original, calls = (
        Operator(Registry(folder), "champion", "else"),
        getattr(kind, method),
        [],
    )

    def overtaken(*args):
        calls.append(args)
        if len(calls) == 1:
            other.finish()
            other.undo("it is not good")
        return original(*args)

    monkeypatch.setattr(kind, method, overtaken)
    assert operator.finish().phase == "Degraded"
    assert Registry(folder).aliases()["champion"] == 1


def test_a_file_that_holds_no_counts_is_left_out(folder, operator):
    state = start(operator)
    shared = Registry(folder).rollout_counts("champion", state.rollout)
    shared.write("sound", {"candidate": {"answers": 3}})
    place = folder / "rollout-counts/champion" / state.rollout
    (place / "list.json").write_text("[1, 2]")
    (place / "link.json").symlink_to(place / "sound.json")
    (place / "large.json").write_text(" " * (MAX_COUNTS_BYTES + 1))
    assert operator.counts(state).candidate.answers == 3


def run(folder, *words):
    result = CliRunner().invoke(app, ["rollout", *map(str, words), "--registry", str(folder)])
    if isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands(folder, tmp_path):
    file = tmp_path / "rollout.yaml"
    file.write_text("strategy: {canary: {steps: [{setWeight: 25}, {pause: {}}]}}")
    assert json.loads(run(folder, "status", "--json")) is None
    assert "step 1 of 2 (setWeight 25 %), weight 25 %" in run(folder, "start", 2, file)
    assert "Paused" in run(folder, "pause")
    assert "is paused already" in run(folder, "pause")
    assert "Paused" in run(folder, "status")
    run(folder, "resume")
    assert "of version 2 is still Progressing" in run(folder, "start", 3)
    assert "Degraded; too slow" in run(folder, "abort", "--reason", "too slow")
    assert "Progressing" in run(folder, "retry")
    assert json.loads(run(folder, "promote", "--json"))["phase"] == "Healthy"
    assert "Degraded" in run(folder, "undo")
    assert [one["phase"] for one in json.loads(run(folder, "list", "--json"))] == ["Degraded"] * 2
    assert "too slow" in run(folder, "list")
    kinds = [one["event"]["type"] for one in json.loads(run(folder, "history", "--json"))]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["undone", "alias-moved"]
    assert "aborted: too slow" in run(folder, "history")
    file.write_text("strategy: {canary: {steps: [{setWieght: 25}]}}")
    assert "did you mean 'setWeight'?" in run(folder, "start", 3, file)


def test_the_schema_of_another_model_is_refused(folder, operator, monkeypatch):
    read = Registry.version

    def widened(registry, name):
        version = read(registry, name)
        if version.number == 2:
            entries = [
                *version.metadata["observation"],
                {"name": "more", "unit": "", "low": 0, "high": 1},
            ]
            return version._replace(metadata=version.metadata | {"observation": entries})
        return version

    monkeypatch.setattr(Registry, "version", widened)
    with pytest.raises(
        UserError, match=r"another observation \(7 numbers\) than version 1 \(6 num"
    ):
        start(operator)


def test_a_specification_that_is_too_large_is_refused(operator):
    steps = [{"analysis": {"metrics": [_metric(number) for number in range(20)]}}] * 100
    specification = parse_specification({"strategy": {"canary": {"steps": steps}}})
    with pytest.raises(RegistryError, match="shorten the rollout's file"):
        operator.start(2, specification, try_model)


def _metric(number):
    return {"name": f"metric {number}", "value": "errorShare", "successCondition": "< 1"}
