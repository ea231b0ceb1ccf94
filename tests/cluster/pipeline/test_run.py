"""A whole pipeline: real episodes, a real training, gates, and a rollout on a real server."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.pipeline import journal
from cluster.pipeline.run import abandon, run_here, run_once, run_stage, watch
from cluster.pipeline.settings import parse_settings
from rlcar.cli import app
from rlcar.config import load_config
from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.system import process_state
from rlcar.system.lease import HeldError
from serve.delivery.operator import Operator
from tests.serve.open_loop import driving_cars
from tests.serve.served import serving
from tests.support import tiny_run
from tests.support.hand_made_versions import publish_follower
from tests.support.recordings import record
from tests.support.waiting import wait_until

SETTINGS = {
    "registry": "models",
    "collect": {"recordings": "sessions", "minimumEpisodes": 50, "minimumTransitions": 1000},
    "train": {
        "offline": {
            "algorithms": ["bc"],
            "mode": "test",
            "settings": ["training.env_steps=1024", "training.evaluate_every_env_steps=1024"],
        }
    },
    # The episodes are noise, so the candidate crashes as soon as the version that drives straight.
    "gates": {
        "simulation": {"tracks": 8, "margin": 1.0},
        "offPolicyEvaluation": {"allowUnknown": True, "updates": 100},
    },
    "rollout": {
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
        "rollback": {"enabled": False},
    },
}


class Interrupted(BaseException):
    """Ends a run where Ctrl-C might."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A pipeline whose process was killed after its training, and what a second process said."""
    root = tmp_path_factory.mktemp("pipeline")
    publish_follower(root / "models", 0.15, gain=0.0, alias="champion")
    publish_follower(root / "models", 0.15)
    record(root / "sessions" / "server-1", episodes=60)
    (root / "nightly.yaml").write_text(json.dumps(SETTINGS))
    with (root / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlcar.cli", "pipeline", "nightly.yaml", "--once"],
            cwd=root,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        journal_folder = root / "pipelines/nightly/runs/0001/journal"

        def wait_for(name):
            wait_until(
                lambda: (journal_folder / name).exists() or process.poll() is not None, 300.0
            )
            assert (journal_folder / name).exists(), (root / "output").read_text()

        wait_for("01-collect.json")
        with contextlib.chdir(root):
            second = run_once(settings(), Registry("models"), lambda text: None)
        wait_for("03-train.json")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return root, process.pid, second


@pytest.fixture
def place(killed, tmp_path, monkeypatch):
    """A copy of the pipeline after the kill, as the working folder."""
    shutil.copytree(killed[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def after_gates(killed, tmp_path_factory):
    """The same pipeline after its gates; the version was published, but not noted."""
    root = tmp_path_factory.mktemp("gated") / "copy"
    shutil.copytree(killed[0], root)
    with contextlib.chdir(root), pytest.raises(Interrupted):
        once(execute=dying_in("register"))
    return root


@pytest.fixture
def gated(after_gates, tmp_path, monkeypatch):
    """A copy of the pipeline after its gates, as the working folder."""
    shutil.copytree(after_gates, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def settings(**changes):
    return parse_settings(SETTINGS | changes, "nightly")


def once(say=lambda text: None, execute=run_here, **changes):
    return run_once(settings(**changes), Registry("models"), say, execute)


def driving(server):
    """Drives ten cars until the block ends."""
    return driving_cars(f"http://127.0.0.1:{server.port}", per_s=40.0, at_once=4)


def dying_in(victim):
    """Returns an executor whose process ends after the work of a stage, before its entry."""

    def execute(context, stage):
        if stage.name != victim:
            run_here(context, stage)
            return
        values = context.run.values()
        stage.work(context, {name: values[name] for name in stage.inputs})
        raise Interrupted

    return execute


def test_a_second_process_lets_the_first_one_work(killed):
    _, process, second = killed
    assert second.exit_code == 0
    assert second.sentence.startswith(f"nightly is run already by process {process} of ")


def test_a_killed_run_goes_on_to_the_promotion(gated):
    before = journal.runs(gated / "pipelines/nightly")[0].entries()
    stages = ["collect", "validate", "train", "simulation gate", "off-policy gate"]
    assert [entry.stage for entry in before] == stages
    operator = Operator(Registry("models"), "champion", "me")

    def say(text):
        if text.startswith("rollout "):
            raise Interrupted

    with pytest.raises(Interrupted):
        once(say)  # in the rollout, which waits for a server
    rollout = operator.read().state.rollout
    with serving(gated / "models", poll_s=0.1) as server, driving(server):
        arms = server.config.app.app.action_service.arms
        wait_until(lambda: arms.counts.candidate.answers >= 20)
        wait_until(lambda: operator.read().state.phase == "Paused")
        operator.resume()
        ending = once()
    assert (ending.outcome, ending.exit_code) == ("promoted", 0)
    registry = Registry("models")
    assert registry.aliases() == {"champion": 3, "candidate": 3}
    assert registry.numbers() == [3, 2, 1]  # the repeated stage has published nothing twice
    assert operator.read().state.rollout == rollout
    entries = ending.run.entries()
    assert entries[:5] == before
    lineage = registry.version(3).metadata["lineage"]
    values = ending.run.values()
    assert (lineage["parent"], lineage["run"]) == (1, "nightly-0001-bc")
    assert lineage["data"] == values["learned_sha256"]
    assert lineage["data_origins"][-1] == values["data_sha256"]
    assert values["answers"]["candidate"] >= 20
    report = json.loads((ending.run.folder / "report.json").read_text())
    assert report["outcome"] == "promoted"
    assert [stage["stage"] for stage in report["stages"]] == [one.stage for one in entries]
    assert (ending.run.folder / "report.png").read_bytes().startswith(b"\x89PNG")

    again = once()
    assert (again.outcome, again.exit_code) == (None, 0)
    assert "not enough new data: 0 of 50 episodes" in again.sentence


def test_a_candidate_that_is_worse_stops_at_the_gate(place):
    Registry("models").promote(2)
    result = CliRunner().invoke(app, ["pipeline", "nightly.yaml"])
    assert result.exit_code == 3, result.output
    assert Registry("models").numbers() == [2, 1]
    (run,) = journal.runs(place / "pipelines/nightly")
    assert run.outcome == "stopped at a gate"
    assert run.entries()[-1].stage == "simulation gate"
    assert (run.folder / "gates" / "simulation-gate.png").exists()
    shown = CliRunner().invoke(app, ["pipeline", "nightly.yaml", "--status"])
    assert "stopped at a gate" in shown.output
    tree = json.loads(
        CliRunner().invoke(app, ["pipeline", "nightly.yaml", "--status", "--json"]).stdout
    )
    assert tree[0]["outcome"] == "stopped at a gate"


@pytest.mark.long
def test_the_champion_s_own_training_can_go_on_instead(tmp_path, monkeypatch):
    folder, _ = tiny_run.trained()
    shutil.copytree(folder, tmp_path / "runs" / "tiny")
    monkeypatch.chdir(tmp_path)
    registry = Registry("models")
    registry.promote(registry.publish(Path("runs/tiny")).number)
    record(tmp_path / "sessions" / "server-1", episodes=60)
    few = ["training.env_steps=256", "training.evaluate_every_env_steps=256"]
    with pytest.raises(Interrupted), tiny_run.compiled_once():
        once(
            execute=dying_in("simulation gate"),
            train={"fineTune": {"settings": few}},
            gates={"simulation": {"tracks": 8, "margin": 1000.0}},
        )
    (run,) = journal.runs(tmp_path / "pipelines/nightly")
    candidate = run.folder / run.values()["trained_run"]
    config = load_config(candidate / "config.json")
    assert Path(config.training.start_from).is_relative_to(tmp_path / "runs" / "tiny")
    assert run.entries()[-1].sentence == f"{config.algorithm} after version 1"


def test_a_rollout_that_is_aborted_is_rolled_back_and_other_settings_wait(gated):
    with pytest.raises(UserError, match=r"began with other settings \(rolloutTimeout\)"):
        once(rolloutTimeout="30m")

    def say(text):
        if "Progressing" in text:
            Operator(Registry("models"), "champion", "me").abort("too slow")

    ending = once(say)
    assert (ending.outcome, ending.exit_code) == ("rolled back", 4)
    assert ending.sentence.startswith(
        "nightly-0001: rolled back: version 3 is rolled back: too slow"
    )
    assert Registry("models").aliases()["champion"] == 1


def test_a_rollout_without_traffic_is_aborted_after_the_timeout(gated):
    plan = gated / "pipelines/nightly/runs/0001/plan.json"
    tree = json.loads(plan.read_text())
    tree["settings"]["rolloutTimeout"] = 0.2
    plan.write_text(json.dumps(tree))
    ending = once(rolloutTimeout="200ms")
    assert "it has not ended within 0.2 s" in ending.sentence


def test_a_champion_that_has_moved_since_the_gate_ends_the_run(gated):
    Registry("models").promote(2)
    ending = once()
    assert (ending.outcome, ending.exit_code) == ("overtaken", 3)
    assert "champion moved from version 1 to 2 meanwhile" in ending.sentence


def test_a_service_that_is_stopped_says_how_to_go_on(gated):
    command = [sys.executable, "-m", "rlcar.cli", "pipeline", "nightly.yaml", "--watch"]
    with (gated / "said").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        # Without a server the rollout waits.
        wait_until(lambda: "Progressing" in (gated / "said").read_text(), 120.0)
    finally:
        process.terminate()
        code = process.wait(60)
    said = (gated / "said").read_text()
    assert code == 130, said
    again = "stopped; continue with: rlcar pipeline nightly.yaml --watch --interval 1h"
    assert said.splitlines()[-1] == again
    assert Operator(Registry("models"), "champion", "me").read().state.is_running


def test_an_abandoned_run_gives_its_episodes_back(place):
    assert abandon(settings()) == "run 1 of nightly is abandoned"
    with pytest.raises(UserError, match="nightly has no open run to abandon"):
        abandon(settings())
    with pytest.raises(Interrupted):
        once(execute=dying_in("collect"))
    _, run = journal.runs(place / "pipelines/nightly")
    assert run.spans["server-1"].first == 0
    assert run.entries() == []


def test_a_rollout_of_somebody_else_is_one_sentence(place):
    shutil.rmtree(place / "pipelines")
    Operator(Registry("models"), "champion", "me").start(
        2, settings().rollout, lambda model: None, rollout="theirs"
    )
    with pytest.raises(UserError, match="rollout theirs of version 2 is still Progressing"):
        once()
    assert journal.runs(place / "pipelines/nightly") == []


def test_a_stage_that_cannot_go_on_says_what_to_do(gated):
    theirs = Operator(Registry("models"), "champion", "me")
    theirs.start(2, settings().rollout, lambda model: None)
    with pytest.raises(
        UserError, match=r"rollout of nightly-0001: rollout .* is still .*--abandon"
    ):
        once()
    theirs.abort("it is the pipeline's turn")

    def say(text):
        if text.startswith("rollout "):
            raise Interrupted

    with pytest.raises(Interrupted):
        once(say)
    assert theirs.read().state.candidate == 3


def test_a_service_goes_on_after_a_mistake_until_it_is_stopped():
    said, calls = [], []

    def look():
        calls.append(len(calls))
        if len(calls) == 1:
            raise UserError("the folder is away")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(look, 0.01, said.append)
    assert said == ["error: the folder is away"]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A champion and enough new episodes, in the working folder; no run has begun."""
    monkeypatch.chdir(tmp_path)
    publish_follower(tmp_path / "models", 0.15, alias="champion")
    record(tmp_path / "sessions" / "server-1", episodes=60)
    return tmp_path


def test_a_run_without_a_report_gets_it_and_its_exit_code_with_the_next_call(fresh):
    run = journal.begin(fresh / "pipelines/nightly", settings().tree(), {})
    run.write(journal.Entry("rollout", 0.0, 1.0, {}, {}, "too slow", "rolled back"))
    ending = once()  # its process was killed before it wrote the report
    assert (ending.outcome, ending.exit_code) == ("rolled back", 4)
    assert json.loads((run.folder / "report.json").read_text())["reason"] == "too slow"
    with pytest.raises(Interrupted):
        once(execute=dying_in("collect"))
    assert [one.number for one in journal.runs(fresh / "pipelines/nightly")] == [1, 2]


def test_a_job_of_another_run_or_with_other_settings_writes_nothing(fresh):
    with pytest.raises(Interrupted):
        once(execute=dying_in("collect"))
    (run,) = journal.runs(fresh / "pipelines/nightly")

    def job(number, **changes):
        models = Registry("models")
        return run_stage(settings(**changes), models, lambda text: None, "collect", number)

    with pytest.raises(UserError, match="the stage collect of run 2 of nightly is not the next"):
        job(2)
    with pytest.raises(UserError, match=r"began with other settings \(rolloutTimeout\)"):
        job(1, rolloutTimeout="30m")
    with pytest.raises(UserError, match=r"began with other settings \(registry\)"):
        job(1, registry="elsewhere")
    assert run.entries() == []
    assert job(1).startswith("collect: 60 episodes, ")
    assert [entry.stage for entry in run.entries()] == ["collect"]


def test_a_process_that_has_lost_the_pipeline_writes_no_entry(fresh):
    folder = fresh / "pipelines/nightly"

    def execute(context, stage):
        # This process was suspended for so long that another host took the pipeline over.
        theirs = {"host": "beta", "pid": 7, "lease": 99}
        process_state.write(folder, process_state.describe("running") | theirs)
        run_here(context, stage)

    with pytest.raises(HeldError, match="was taken over by process 7 of the host beta"):
        once(execute=execute)
    (run,) = journal.runs(folder)
    assert run.entries() == []
