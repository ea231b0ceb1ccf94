import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlcar.cli import app
from rlcar.config import EnvironmentConfig, load_config, make_config
from rlcar.datasets import Dataset, World
from rlcar.errors import DatasetError, NonFiniteError, UserError
from rlcar.offline.candidates import run_folder, train_candidates
from rlcar.offline.data_settings import settings_of_data
from rlcar.offline.held_out import set_apart
from rlcar.offline.plan import candidates_for
from rlcar.registry import Registry
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.training.loop import train
from rlcar.training.rollback import with_lower_learning_rate
from rlcar.types import Spec
from tests.support.recordings import record
from tests.support.tiny_run import SETTINGS, compiled_once

TINY = (
    *("--mode", "test", "--updates", "100", "--algorithm", "bc", "--algorithm", "iql"),
    *("--set", "training.env_steps=2048", "--set", "training.evaluate_every_env_steps=2048"),
)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    with compiled_once():
        yield


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
    assert "The verdict compares with bc, and that of bc with the recorded behaviour." in report
    estimated = json.loads((root / "out" / "ope.json").read_text())
    assert (estimated["baseline"]["name"], list(estimated["policies"])) == ("bc", ["iql"])
    run = f"runs/out-{result['chosen']}"
    for picture in ("selection.png", "ope.png", f"{run}/learning_curve.png", f"{run}/laps.png"):
        assert (root / "out" / picture).exists()
        assert f"({picture})" in report
    of_run = json.loads((root / "out" / run / "report.json").read_text())
    assert (of_run["track_set"], of_run["tracks"]) == ("test", 64)


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


def offline(root, *words: str) -> dict:
    """Runs a tiny selection without publishing; returns the contents of selection.json."""
    command = ["offline", str(root / "data"), "--out", str(root / "out"), *TINY, "--no-publish"]
    CliRunner().invoke(app, [*command, *words], catch_exceptions=False)
    return json.loads((root / "out" / "selection.json").read_text())


def test_estimates_that_decide_are_from_episodes_that_nothing_learned_from(tmp_path):
    """The other algorithm diverges: that is reported, and the selection goes on."""
    whole = record(tmp_path / "data", world=World(name="elsewhere"), episodes=60)
    published = ("--publish", "--registry", str(tmp_path / "models"))
    result = offline(tmp_path, "--set", "iql.reward_scale=1e30", *published)
    assert result["chosen"] == "bc"
    assert result["held_out_episodes"] == 12
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["held_out"]["share"] == 0.2
    assert plan["held_out"]["seed"] == 0
    estimated = json.loads((tmp_path / "out" / "ope.json").read_text())
    assert estimated["data_sha256"] == plan["held_out"]["data_sha256"]
    assert estimated["episodes"] == 12
    learned = plan["candidates"]["bc"]["data"]["fingerprint"]
    assert learned not in (whole.fingerprint, estimated["data_sha256"])
    found = (tmp_path / "out" / "data").rglob("dataset.json")
    parts = [Dataset.open(path.parent) for path in found]
    assert {learned, estimated["data_sha256"]} == {part.fingerprint for part in parts}
    assert sum(part.episodes for part in parts) == 60
    lineage = Registry(tmp_path / "models").version(1).metadata["lineage"]
    assert (lineage["data"], lineage["data_origins"]) == (learned, [whole.fingerprint])

    assert "is inf" in result["candidates"]["iql"]["failed"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| iql | failed |" in report
    assert "iql failed: " in report
    assert "12 held-out episodes" in report

    # The same command does not try again what failed.
    again = offline(tmp_path, "--set", "iql.reward_scale=1e30")
    failure = again["candidates"]["iql"]["failed"]
    assert result["candidates"]["iql"]["failed"] in failure
    assert f"to train it again, remove {tmp_path / 'out' / 'runs' / 'out-iql'}" in failure


def test_a_diverging_baseline_ends_the_selection(tmp_path):
    record(tmp_path / "data")
    with pytest.raises(NonFiniteError):
        offline(tmp_path, "--set", "bc.learning_rate=1e30")


def test_discrete_actions_are_compared_by_the_episodes_of_their_environment(tmp_path):
    world = World(environment=EnvironmentConfig(id="CartPole-v1"))
    record(tmp_path / "data", world=world, spec=Spec(4, 2, is_discrete=True))
    result = offline(tmp_path)
    assert result["measured"] == "negative reward of an episode"
    costs = {name: candidate["cost"] for name, candidate in result["candidates"].items()}
    assert list(costs) == ["bc", "iql"]
    assert costs[result["chosen"]] == min(costs.values()) < 0.0


@pytest.mark.long
@pytest.mark.slow
def test_the_same_command_continues_after_a_kill_and_after_ctrl_c(tmp_path):
    record(tmp_path / "data")
    words = ["offline", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *TINY]
    words += ["--no-publish", "--set", "training.checkpoint_every_s=1e-9"]
    words += ["--set", "training.env_steps=32768"]
    checkpoints = {
        name: tmp_path / "out" / "runs" / f"out-{name}" / "checkpoints" for name in ("bc", "iql")
    }

    def wait_for(name: str) -> None:
        deadline_s = time.monotonic() + 240
        while checkpoint.latest(checkpoints[name]) is None and time.monotonic() < deadline_s:
            time.sleep(0.01)

    process = subprocess.Popen([sys.executable, "-m", "rlcar.cli", *words], cwd=tmp_path)
    wait_for("bc")
    process.kill()
    process.wait()
    assert checkpoint.latest(checkpoints["bc"]).env_steps < 32768

    def press_ctrl_c() -> None:
        wait_for("iql")
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press_ctrl_c)
    pressing.start()
    stopped = CliRunner().invoke(app, words, catch_exceptions=False)
    pressing.join()
    assert stopped.exit_code == 130
    _, _, printed = stopped.output.rpartition("stopped; continue with: rlcar ")
    assert checkpoint.latest(checkpoints["iql"]).env_steps < 32768

    finished = CliRunner().invoke(app, shlex.split(printed), catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    assert "training bc" not in finished.output
    result = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert all(candidate["failed"] is None for candidate in result["candidates"].values())


def test_a_candidate_continues_with_the_settings_of_its_checkpoint(tmp_path):
    """A return to a checkpoint after a NaN has lowered the learning rate."""
    record(tmp_path / "data")
    _, of_data = settings_of_data(tmp_path / "data", None, None)
    config = make_config(mode="test", algorithm="bc", overrides=[*of_data, *SETTINGS])
    checkpoints = run_folder(tmp_path / "out", "bc") / "checkpoints"
    train(with_lower_learning_rate(config), checkpoints.parent)
    for save in checkpoint.saves(checkpoints):
        if save.env_steps > 512:
            shutil.rmtree(save.path)
    train_candidates(tmp_path / "out", {"bc": config}, lambda text: None)
    newest = checkpoint.latest(checkpoints)
    assert newest.env_steps == 768
    kept = load_config(checkpoint.config_path(newest))
    assert kept.training.rollbacks == 1
    assert kept.bc.learning_rate == config.bc.learning_rate / 2


def test_a_kill_between_the_two_parts_of_the_data_is_no_obstacle(tmp_path, monkeypatch):
    data = record(tmp_path / "data", world=World(name="elsewhere"), episodes=60)
    replace, named = os.replace, []

    def end_at_the_second(source, target):
        if Path(target).name.endswith(("learned", "held-out")):
            named.append(target)
        if len(named) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", end_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            set_apart(data, tmp_path / "out")
    assert [part.episodes for part in set_apart(data, tmp_path / "out")] == [48, 12]


def test_one_episode_is_too_few_for_estimates_and_enough_for_measures(tmp_path):
    record(tmp_path / "data", episodes=1)
    result = offline(tmp_path)
    assert {candidate["verdict"] for candidate in result["candidates"].values()} == {None}
    assert all(candidate["cost"] is not None for candidate in result["candidates"].values())


def test_too_few_episodes_to_choose_by_estimates_are_refused_at_once(tmp_path):
    record(tmp_path / "data", world=World(name="elsewhere"), episodes=49)
    with pytest.raises(DatasetError, match="49 episodes, too few to choose by estimates"):
        offline(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_baseline_comes_first_and_unfit_algorithms_are_refused():
    assert candidates_for(SPEC)[0] == "bc"
    assert candidates_for(SPEC, ["iql", "bc"]) == ["bc", "iql"]
    assert candidates_for(Spec(0, 2, image_shape=(16, 16, 3))) == ["dreamer"]
    with pytest.raises(UserError, match="ppo cannot learn from this data: choose among"):
        candidates_for(SPEC, ["ppo"])
