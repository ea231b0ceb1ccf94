"""A run has one name, however its folder is written; and commands are printed as they work."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rlcar.cli import app
from rlcar.errors import StorageError, UserError
from rlcar.evaluation.run_report import evaluate_run
from rlcar.runs.folders import newest_first
from rlcar.runs.monitor import RunReader
from rlcar.runs.run import find_save, new_run_folder, require_run
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.storage.runs import Storage
from rlcar.training.loop import train
from tests.runs.test_run import make_run, save_at
from tests.support.tiny_run import compiled_once, make_tiny_config
from tests.support.waiting import wait_until

CONFIG = make_tiny_config()
PATIENCE_S = 240.0
# The folder to be in, and how the run runs/x is written there.
SPELLINGS = [
    ("runs/x", "."),
    ("runs/x", "../x"),
    ("runs/x/checkpoints", ".."),
    ("runs", "x/"),
    ("runs", "x/best/.."),
    ("runs", "./x"),
    (".", "runs/latest"),
    ("runs/latest", "."),
]


@pytest.fixture(params=SPELLINGS, ids=str)
def spelling(request, tmp_path, monkeypatch):
    """The run runs/x with a save; returns how it is written in the present folder."""
    make_run(tmp_path / "runs/x", 256)
    (tmp_path / "runs/x/best").mkdir(exist_ok=True)
    (tmp_path / "runs/latest").symlink_to("x")
    here, path = request.param
    monkeypatch.chdir(tmp_path / here)
    return path


def test_a_run_is_mirrored_and_fetched_by_its_own_name(spelling, tmp_path):
    stored = tmp_path / "stored"
    with Mirror(Path(spelling), f"file://{stored}") as mirror:
        mirror.push()
    assert [path.name for path in stored.iterdir()] == ["x"]
    assert checkpoint.latest(stored / "x/checkpoints").env_steps == 256
    shutil.rmtree(tmp_path / "runs/x/checkpoints/step-000000256")
    fetched = Storage(str(stored)).fetch_newer(tmp_path / "runs", spelling, None)
    assert fetched.path == tmp_path / "runs/x/checkpoints/step-000000256"


def test_every_spelling_is_the_same_run(spelling, tmp_path):
    path = Path(spelling)
    assert require_run(path).name == "x"
    assert require_run(path).resolve() == tmp_path / "runs/x"
    assert RunReader(path).status().name == "x"
    assert find_save(tmp_path / "runs", spelling, None).env_steps == 256


def test_a_checkpoint_that_is_named_from_inside_its_folder_is_found(tmp_path, monkeypatch):
    make_run(tmp_path / "runs/x", 128, 256)
    monkeypatch.chdir(tmp_path / "runs/x/checkpoints")
    assert find_save(tmp_path, "step-000000128", None).env_steps == 128
    best = save_at(tmp_path / "runs/x/best", 256, metric=3.0)
    monkeypatch.chdir(best.path)
    with pytest.raises(UserError, match="holds only a policy"):
        find_save(tmp_path, ".", None)


@pytest.fixture(scope="module")
def cart_pole_run(tmp_path_factory):
    """The folder of a complete run of an environment that is quickly compiled and evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    settings = ["environment.id=CartPole-v1", "algorithm=ppo"]
    with compiled_once():
        train(make_tiny_config(*settings), folder)
    return folder


def test_the_best_policy_of_the_run_that_one_is_in_is_evaluated(
    cart_pole_run, tmp_path, monkeypatch
):
    shutil.copytree(cart_pole_run, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path / "tiny")
    with compiled_once():
        evaluate_run(Path())
    assert (tmp_path / "tiny/report.json").exists()


def test_a_training_resumed_from_inside_its_folder_goes_on_on_a_fresh_machine(
    cart_pole_run, rlcar, tmp_path, monkeypatch
):
    shutil.copytree(cart_pole_run, tmp_path / "runs/tiny")
    stored = tmp_path / "stored"
    monkeypatch.chdir(tmp_path / "runs/tiny")
    with compiled_once():
        code, _, said = rlcar("train", "--local", "--resume", ".", "--storage", f"file://{stored}")
        assert code == 0, said
        assert [path.name for path in stored.iterdir()] == ["tiny"]
        (tmp_path / "fresh").mkdir()
        monkeypatch.chdir(tmp_path / "fresh")
        auto = ["train", "--local", "--resume", "auto", "--storage", f"file://{stored}"]
        code, _, said = rlcar(*auto)
    assert code == 0, said
    assert "fresh/runs/tiny/checkpoints/step-" in said
    assert [path.name for path in (tmp_path / "fresh/runs").iterdir()] == ["tiny"]


def test_a_restarted_service_needs_the_source_of_its_run_no_more(rlcar, tmp_path):
    """The version that `--from` names may be gone by then."""
    make_run(tmp_path / "runs" / "tuned", 256)
    words = ["--from", "7", "--registry", str(tmp_path / "gone"), "--name", "tuned"]
    _, _, said = rlcar("train", "--local", *words, "--resume", "auto")
    assert "a resumed run keeps its own settings: --from ignored" in said
    assert "continuing step-000000256" in said


def test_an_address_that_is_itself_a_run_is_refused_with_what_to_do(tmp_path):
    make_run(tmp_path / "stored", 256)
    with pytest.raises(StorageError, match="is itself a stored run .* name the folder above it"):
        Storage(str(tmp_path / "stored")).fetch_newer(tmp_path / "runs", "auto", None)


def test_auto_says_when_it_found_nothing_to_continue_and_what_the_storage_holds(rlcar, tmp_path):
    make_run(tmp_path / "one", 256)
    Storage(str(tmp_path / "stored")).push(tmp_path / "one")
    options = ["--local", "--mode", "test", "--preset", "ppo", "--env", "CartPole-v1"]
    options += ["--set", "training.env_steps=256"]
    options += ["--name", "new", "--storage", f"file://{tmp_path}/stored"]
    code, _, said = rlcar("train", *options, "--resume", "auto")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "found nothing to continue" in line]
    assert "there is not a run new below runs or in file:///" in line
    assert line.endswith("(which holds one); a new run begins")


def test_another_machines_run_of_the_same_name_is_left_alone_in_the_storage(tmp_path):
    for machine in ("alpha", "beta"):
        make_run(tmp_path / machine / "x", 128 if machine == "alpha" else 256)
        # Both began in one second with the same settings: what tells them apart is written anyway.
        (tmp_path / machine / "x/run.json").write_text(f'{{"commit": "{machine}"}}')
    Storage(str(tmp_path / "stored")).push(tmp_path / "alpha/x")
    with pytest.raises(StorageError, match="holds another run that is called x"):
        Storage(str(tmp_path / "stored")).push(tmp_path / "beta/x")
    assert checkpoint.latest(tmp_path / "stored/x/checkpoints").env_steps == 128
    Storage(str(tmp_path / "stored")).push(tmp_path / "alpha/x")


def printed_command(text):
    """The command in a message, as a shell reads it; a semicolon ends it."""
    rest = "rlcar" + text.partition(": rlcar")[2]
    words = list(shlex.shlex(rest, posix=True, punctuation_chars=True))
    return words[: words.index(";")] if ";" in words else words


def test_commands_in_refusals_are_read_by_a_shell_and_by_us(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = Path("my runs")
    make_run(runs / "a run")
    make_run(runs / "b run", 256)
    save_at(runs / "b run/best", 256, metric=3.0)
    refused = [
        lambda: new_run_folder(runs, "a run", CONFIG),
        lambda: new_run_folder(runs, "b run", CONFIG),
        lambda: find_save(runs, str(runs / "a run"), None),
        lambda: find_save(runs, str(runs / "b run/best/step-000000256"), None),
    ]
    commands = typer.main.get_command(app).commands
    for refuse in refused:
        with pytest.raises(UserError) as refusal:
            refuse()
        _, verb, *rest = printed_command(str(refusal.value))
        given = commands[verb].make_context(f"rlcar {verb}", rest).params
        if given["resume"] == "auto":
            assert (runs / given["name"]).is_dir()
            assert given["runs"] == runs
        else:
            assert find_save(given["runs"], given["resume"], given["name"]) is not None


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_the_printed_command(tmp_path):
    settings = ["training.env_steps=10000000", "training.checkpoint_every_s=0.05", "ppo.epochs=1"]
    words = ["--preset", "ppo", "--mode", "test"]
    words += [word for setting in settings for word in ("--set", setting)]
    first = ["rlcar", "train", "--local", "--name", "a run", "--runs", "my runs", *words]
    again, env_steps = stopped_after(first, tmp_path, 0)
    stopped_after(again, tmp_path, env_steps)
    assert RunReader(tmp_path / "my runs/a run").status().state == "stopped"


@pytest.mark.long  # tests/campaigns/test_campaign.py stops one too and finds the same command
@pytest.mark.slow
def test_a_stopped_campaign_goes_on_with_the_printed_command(tmp_path):
    (tmp_path / "my night.yaml").write_text(
        "jobs: [{name: c, preset: ppo, mode: test, set: "
        "{training.env_steps: 10000000, training.checkpoint_every_s: 0.05}}]\n"
    )
    campaign = ["rlcar", "campaign", "run", "my night.yaml", "--runs", "my runs", "--slots", "1"]
    again, steps = stopped_after(campaign, tmp_path, 0, name="c")
    assert again == campaign
    stopped_after(again, tmp_path, steps, name="c")


def stopped_after(command, cwd, env_steps, name="a run"):
    """Runs a command until it has saved and stops it; returns what it prints, and the env steps."""
    checkpoints = cwd / "my runs" / name / "checkpoints"
    with (cwd / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlcar.cli", *command[1:]], cwd=cwd, stdout=said, stderr=said
        )
    try:
        wait_until(
            lambda: (
                process.poll() is not None
                or ((save := checkpoint.latest(checkpoints)) and save.env_steps > env_steps)
            ),
            PATIENCE_S,
        )
        assert process.poll() is None, (cwd / "said").read_text()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
    text = (cwd / "said").read_text()
    (line,) = [line for line in text.splitlines() if "continue with: " in line]
    again = shlex.split(line.partition("continue with: ")[2])
    return again, checkpoint.latest(checkpoints).env_steps


def test_the_newest_run_is_the_one_that_saved_last_or_has_just_begun(tmp_path):
    (first,) = make_run(tmp_path / "first", 300)
    (second,) = make_run(tmp_path / "second", 100)
    best = save_at(tmp_path / "first/best", 200, metric=1.0)
    for seconds, path in ((10, second.path), (20, first.path), (5, best.path)):
        os.utime(path, (seconds, seconds))
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").touch()
    assert [run.name for run in newest_first(tmp_path)] == ["first", "second"]
    os.utime(second.path, (30, 30))
    assert [run.name for run in newest_first(tmp_path)] == ["second", "first"]
    os.utime(best.path, (40, 40))
    assert [run.name for run in newest_first(tmp_path)] == ["first", "second"]
    assert [run.name for run in newest_first(tmp_path, "second")] == ["second"]
    (tmp_path / "young").mkdir()
    (tmp_path / "young/run.json").write_text("{}")
    assert newest_first(tmp_path)[0].name == "young"
