"""A pipeline and the rollouts of others, and its own one that outlives the run."""

import pytest

from cluster.pipeline import journal
from cluster.pipeline.context import Context
from cluster.pipeline.delivering import abort_own, operator_of, roll_out
from cluster.pipeline.journal import Entry
from cluster.pipeline.run import abandon
from cluster.pipeline.settings import parse_settings
from rlcar.errors import UserError
from rlcar.registry import Registry
from serve.delivery.operator import Operator
from tests.support.hand_made_versions import publish_follower

SETTINGS = parse_settings(
    {
        "registry": "models",
        "collect": {"recordings": "sessions"},
        "rollout": {"strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}},
    },
    "nightly",
)


class Interrupted(BaseException):
    """Ends a stage where Ctrl-C might."""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A champion and a candidate; the registry lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    publish_follower(tmp_path / "models", 0.15, alias="champion")
    publish_follower(tmp_path / "models", 0.2)
    return Registry("models")


def interrupt(text):
    raise Interrupted


def test_the_timeout_aborts_no_rollout_of_somebody_else(registry):
    operator = Operator(registry, "champion", "me")
    operator.start(2, SETTINGS.rollout, lambda model: None, rollout="ours")
    abort_own(operator, "ours", "it has not ended within 1 s")
    assert operator.read().state.message == "it has not ended within 1 s"
    operator.start(2, SETTINGS.rollout, lambda model: None, rollout="theirs", is_again=True)
    abort_own(operator, "ours", "it has not ended within 1 s")
    state = operator.read().state
    assert (state.rollout, state.phase) == ("theirs", "Progressing")


def test_a_run_is_not_abandoned_while_its_rollout_goes_on(registry, tmp_path):
    run = journal.begin(tmp_path / SETTINGS.folder, SETTINGS.tree(), {})
    outputs = {"candidate": 2, "stable": 1}
    run.write(Entry("register", 0.0, 1.0, {}, outputs, "version 2"))
    context = Context(SETTINGS, registry, run, interrupt)
    with pytest.raises(Interrupted):
        roll_out(context, outputs)
    operator = operator_of(context)
    elsewhere = SETTINGS.model_copy(update={"registry": "other"})  # the plan names the registry
    name = operator.read().state.rollout
    with pytest.raises(UserError, match=f"rollout {name} goes on: abort it first with rlcar"):
        abandon(elsewhere)
    assert run.outcome is None
    assert operator.read().state.is_running
    operator.abort("the run is given up")
    assert abandon(elsewhere) == "run 1 of nightly is abandoned"
    assert run.outcome == "abandoned"
    assert (run.folder / "report.json").exists()
