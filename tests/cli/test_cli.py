"""What a user may get wrong: exit code 2, one sentence, no traceback, nothing half-written."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from rlcar.registry import Registry
from rlcar.storage import checkpoint
from rlcar.storage.runs import Storage
from rlcar.training.trainer import load_replay
from tests.support.small_disk import mounted_disk
from tests.support.tiny_run import SETTINGS, compiled_once, trained


@pytest.fixture(autouse=True)
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture
def run_folder(tmp_path):
    return shutil.copytree(trained()[0], tmp_path / "runs" / "tiny")


def everything_in(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_is_one_sentence(result, message, may_have_begun=False):
    code, _, stderr = result
    lines = stderr.splitlines()
    if may_have_begun:
        assert lines.pop(0).startswith("run folder: ")
        lines = [line for line in lines if not line.startswith("replay buffer: ")]
    assert code == 2, stderr
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nanno"], "unknown preset 'nanno'; did you mean 'nano'?"),
        (["--mode", "tset"], "unknown mode 'tset'; did you mean 'test'?"),
        (["--set", "training.env_step=5"], "did you mean 'env_steps'?"),
        (["--set", "trainin.env_steps=5"], "did you mean 'training'?"),
        (["--set", "training.env_steps=lots"], "training.env_steps = 'lots': "),
        (["--set", "training.env_steps"], "is not of the form section.name=value"),
        (["--set", "dreamer.optimizer.learning_rate=nan"], "dreamer.optimizer.learning_rate = "),
        (["--set", "dreamer.optimizer.learning_rate=.nan"], "learning_rate = nan: "),
        (["--set", "training.cars=-1"], "training.cars = -1: "),
        (["--seed", "-1"], "seed = -1: "),
        (["--set", "training.cars=100000000000"], "training.cars = 100000000000: "),
        (["--set", "ppo.hidden_units=10000000"], "ppo.hidden_units = 10000000: "),
        (["--set", "replay.capacity_env_steps=40"], "is less than a block of training.block_l"),
        (["--set", "replay.samples_per_insert=1e-320"], "replay.samples_per_insert = "),
        (["--set", "race.rival.foo=1"], "unknown setting 'race.rival.foo'; "),
        (["--set", "algorithm=3"], "unknown algorithm 3; did you mean 'td3'?"),
        (["--set", "algorithm=null"], "unknown algorithm None; there are: "),
        (["--set", "seed=2024-13-45"], "override 'seed=2024-13-45': the value is not YAML: month"),
        (["--set", "seed=[1"], "the value is not YAML: expected ',' or ']'"),
        (["--env", "a:b:c"], "environment.id = 'a:b:c': "),
        (["--env", ""], "--env is empty: name an environment of Gymnasium"),
        (["--name", "x" * 300], "is not a plain folder name of at most 200 bytes"),
        (["--resume", "auto", "--name", "/x"], "--name '/x' is not a plain folder name"),
        (["--config", "nosuch.yaml"], "cannot read the config file nosuch.yaml"),
        (["--config", "."], "cannot read the config file ."),
        (["--storage", "ftp://host/x"], "'ftp://host/x' is not an address of storage"),
        (["--storage", "/dev/null/x"], "cannot reach the storage /dev/null/x: "),
        (["--name", "a/b"], "--name 'a/b' is not a plain folder name"),
        (["--name", ""], "--name '' is not a plain folder name"),
        (["--resume", "nosuch"], "nosuch is not a run or a checkpoint of one"),
        (["--resume", "."], "is not a run or a checkpoint of one"),
        (["--simulators", "2"], "--local runs in one process: leave out --address, --simula"),
        (["--address", "auto"], "--local runs in one process"),
    ],
)
def test_a_wrong_option_of_train_is_one_sentence_and_makes_no_folder(
    rlcar, tmp_path, arguments, message
):
    assert_is_one_sentence(rlcar("train", "--local", *arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_a_negative_number_of_simulators_is_refused_before_ray_starts(rlcar, tmp_path):
    assert_is_one_sentence(rlcar("train", "--simulators", "-1"), "--simulators -1: ")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_ray_is_one_sentence_that_says_how_to_install_it(rlcar, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("ray", "cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = rlcar("train")
    assert_is_one_sentence(result, "Ray is not installed: pip install 'rlcar[cluster]', or train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[1, 2]", "5", "a: [", "\x00"])
def test_a_config_file_that_holds_no_settings_is_refused(rlcar, tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    code, _, stderr = rlcar("train", "--local", "--config", "run.yaml")
    assert code == 2
    assert stderr.startswith("error: ")
    assert "the config file run.yaml" in stderr
    assert "Traceback" not in stderr


def test_a_name_that_is_taken_is_refused_and_the_run_is_left_alone(rlcar, run_folder):
    before = everything_in(run_folder)
    result = rlcar("train", "--local", "--name", "tiny")
    assert_is_one_sentence(
        result, "runs/tiny already holds a run: continue it with: rlcar train --resume"
    )
    assert everything_in(run_folder) == before


def test_a_truncated_checkpoint_is_refused_and_the_previous_one_is_named(rlcar, run_folder):
    saves = checkpoint.saves(run_folder / "checkpoints")
    state = saves[-1].path / "state.safetensors"
    os.truncate(state, state.stat().st_size // 2)
    before = everything_in(run_folder)
    for resume in (run_folder, saves[-1].path):
        result = rlcar("train", "--local", "--resume", resume)
        assert_is_one_sentence(
            result, f"resume with --resume {saves[-2].path}", may_have_begun=True
        )
        assert "is damaged (state.safetensors: checksum differs)" in result[2]
    assert everything_in(run_folder) == before


@pytest.mark.parametrize(
    "setting", ["dreamer.world_model.units=64", "replay.capacity_env_steps=4096"]
)
def test_a_setting_that_does_not_fit_the_checkpoint_is_refused_and_nothing_is_written(
    rlcar, run_folder, setting
):
    before = everything_in(run_folder)
    result = rlcar("train", "--local", "--resume", run_folder, "--set", setting)
    said = "another architecture" if "dreamer" in setting else "replay.capacity_env_steps"
    assert_is_one_sentence(result, said, may_have_begun=True)
    assert everything_in(run_folder) == before


def test_damaged_settings_of_a_checkpoint_are_refused_and_the_previous_one_is_named(
    rlcar, run_folder
):
    saves = checkpoint.saves(run_folder / "checkpoints")
    (saves[-1].path / "config.json").write_text("{")
    result = rlcar("train", "--local", "--resume", run_folder)
    assert_is_one_sentence(result, f"resume with --resume {saves[-2].path}")
    assert "is damaged (config.json: checksum differs)" in result[2]


def test_a_learning_rate_out_of_this_world_ends_with_the_metrics_name(rlcar, tmp_path):
    settings = [part for one in SETTINGS for part in ("--set", one)]
    wild = ["--algorithm", "sac", "--set", "sac.learning_rate=1e30", "--name", "wild"]
    result = rlcar("train", "--local", "--mode", "test", *settings, *wild)
    code, _, stderr = result
    assert code == 2
    *before, last = stderr.splitlines()
    assert re.search(r"error: \S+ is (nan|-?inf) after \d+ train", last)
    assert sum("returning to" in line for line in before) == 2
    assert "Traceback" not in stderr


@pytest.mark.parametrize("option", [["--algorithm", "td3"], ["--set", "algorithm=td3"]])
def test_a_checkpoint_of_another_algorithm_is_refused_and_nothing_is_written(
    rlcar, run_folder, option
):
    before = everything_in(run_folder)
    result = rlcar("train", "--local", "--resume", run_folder, *option)
    assert_is_one_sentence(result, "is a checkpoint of dreamer, which td3 cannot continue")
    assert everything_in(run_folder) == before


def test_a_wrong_setting_at_resume_is_refused_like_any_other(rlcar, run_folder):
    result = rlcar("train", "--local", "--resume", run_folder, "--set", "training.car=2")
    assert_is_one_sentence(result, "did you mean 'cars'?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["runs/tiny", "--tracks", "nosuch"],
            "unknown track set 'nosuch'; there are: circuits, test, train",
        ),
        (["runs/nosuch"], "runs/nosuch is not a run or a checkpoint of one"),
        (["runs/tiny/checkpoints/step-000000001"], "there is no such folder"),
    ],
)
def test_a_wrong_argument_of_evaluate_is_one_sentence(rlcar, run_folder, arguments, message):
    assert_is_one_sentence(rlcar("evaluate", *arguments), message)
    assert not (run_folder / "report.json").exists()


def test_a_report_that_cannot_be_written_is_one_sentence(rlcar, run_folder):
    (run_folder / "report.json").mkdir()
    result = rlcar("evaluate", "runs/tiny")
    assert_is_one_sentence(result, "cannot write runs/tiny: ")
    assert "is intact" in result[2]


def test_evaluate_prints_the_figures_and_ends_well(rlcar, run_folder):
    code, stdout, stderr = rlcar("evaluate", "runs/tiny", "--tracks", "test")
    assert code == 0
    assert stdout.count("\nfigure ") == 6
    assert stderr == ""


def test_a_fresh_machine_goes_on_from_the_storage_and_no_name_in_it_is_taken_twice(
    rlcar, run_folder, tmp_path
):
    stored = tmp_path / "stored"
    Storage(str(stored)).push(run_folder)
    shutil.rmtree(tmp_path / "runs")
    storage = ["--storage", f"file://{stored}"]
    taken = rlcar("train", "--local", "--name", "tiny", *storage)
    assert_is_one_sentence(
        taken, "already holds a run tiny: continue it with: rlcar train --resume runs/tiny"
    )
    longer = ["--set", "training.env_steps=896"]
    code, stdout, stderr = rlcar("train", "--local", "--resume", "runs/tiny", *storage, *longer)
    assert code == 0, stderr
    assert re.search(r"fetched from the storage: \S*runs/tiny/checkpoints/step-000000768\n", stderr)
    assert "\nfigure env_steps=896\n" in stdout
    (run,) = Storage(str(stored)).runs()
    assert (run.name, run.env_steps) == ("tiny", 896)


def test_resume_auto_goes_on_to_the_new_end_and_writes_the_report(rlcar, run_folder):
    arguments = ["--local", "--resume", "auto", "--set", "training.env_steps=896"]
    code, stdout, stderr = rlcar("train", *arguments)
    assert code == 0
    began, memory, *hints = stderr.splitlines()
    assert began == "run folder: runs/tiny, continuing step-000000768"
    assert re.fullmatch(
        r"replay buffer: \d+ env steps at capacity need \S+ GB \(\d+ bytes each\); "
        r"this host has \S+ GB of memory, \S+ GB of it available now",
        memory,
    )
    assert "\nfigure env_steps=896\n" in stdout
    assert "report and pictures (64 test tracks): runs/tiny\n" in stdout
    assert hints == [
        "next:",
        "  watch the car drive   rlcar watch runs/tiny",
        "  drive other tracks    rlcar evaluate runs/tiny --tracks circuits",
        "  publish the policy    rlcar models publish runs/tiny",
        "  publish and serve it  rlcar serve runs/tiny",
    ]


def test_resume_auto_does_nothing_for_a_complete_run_and_publishes_it_once(rlcar, run_folder):
    complete = ["--local", "--resume", "auto", "--name", "tiny"]
    assert "\nfigure env_steps=768\n" in rlcar("train", *complete)[1]  # it had no report yet
    before = everything_in(run_folder)
    again = rlcar("train", *complete)
    said = "run folder: runs/tiny: the training is complete; nothing to continue\n"
    assert again == (0, "", said)
    assert everything_in(run_folder) == before
    assert "published: version 1 of " in rlcar("train", *complete, "--publish")[2]
    assert rlcar("train", *complete, "--publish") == (0, "", said)
    assert [version.number for version in Registry("models").versions()] == [1]
    longer = rlcar("train", *complete, "--set", "training.env_steps=896")
    assert "\nfigure env_steps=896\n" in longer[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_full_disk_stops_training_with_the_last_good_checkpoint_named(rlcar, tmp_path):
    size_kb = (
        sum(
            path.stat().st_size
            for path in checkpoint.saves(trained()[0] / "checkpoints")[-1].path.iterdir()
        )
        // 1024
    )
    with mounted_disk(tmp_path / "disk", size_kb * 5 // 2) as runs:
        settings = [part for one in SETTINGS for part in ("--set", one)]
        arguments = ["--local", "--mode", "test", "--runs", runs, "--name", "full", *settings]
        result = rlcar("train", *arguments)
        last = checkpoint.latest(runs / "full" / "checkpoints")
        assert last is not None
        message = f"No space left on device; the last good checkpoint {last.path} is intact"
        assert_is_one_sentence(result, message, may_have_begun=True)
        assert load_replay(last)


@pytest.mark.parametrize(
    "arguments",
    [["train", "--local", "--resume", "."], ["evaluate", "."]],
    ids=["resume", "evaluate"],
)
def test_the_real_program_says_one_sentence_and_no_traceback(tmp_path, arguments):
    command = [sys.executable, "-W", "error::DeprecationWarning:rlcar", "-m", "rlcar.cli"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_is_one_sentence((done.returncode, done.stdout, done.stderr), "")


def test_ctrl_c_while_the_program_is_still_being_read_is_no_traceback():
    program = """
import sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "rlcar.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from rlcar.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
