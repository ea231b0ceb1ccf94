"""`rlcar train --mode curriculum`: what it refuses, and one curriculum from its file to its end."""

import json
from pathlib import Path

import pytest
import yaml

from rlcar.cli.curriculum import FAILED_EXIT_CODE
from rlcar.registry import Registry
from rlcar.runs.folders import require_run
from rlcar.training.curriculum.record import begin_record, run_folder
from tests.support.tiny_curriculum import curriculum, stage

TREE = curriculum(stage("a", max_env_steps=256), stage("b", max_env_steps=256)).model_dump(
    mode="json"
)


@pytest.fixture
def file(tmp_path):
    """The file of a tiny curriculum."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TREE))
    return path


def _train(rlcar, *words):
    return rlcar("train", "--mode", "curriculum", "--local", *words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "--mode curriculum needs --curriculum: a YAML file, or one of grand-prix"),
        (("--curriculum", "grand-pri"), "there is no curriculum 'grand-pri'"),
        (("--curriculum", "FILE", "--preset", "nano"), "leave out --preset"),
        (("--curriculum", "FILE", "--world", "classic", "--deterministic"), "--world, --determ"),
        (
            ("--curriculum", "FILE", "--storage", "/away"),
            "leave --storage out, unset RLCAR_STORAGE",
        ),
        (("--set", "ppo.epochs=2"), "name it with --curriculum"),
        (("--resume", "auto"), "--resume auto continues a curriculum by its name"),
        (("--resume", "runs/nothing"), "holds no curriculum to continue"),
        (("--curriculum", "FILE", "--set", "ppo.epoch=2"), "unknown setting 'ppo.epoch'"),
        (("--curriculum", "FILE", "--name", "a/b"), "is not a plain folder name"),
    ],
)
def test_a_mistake_is_one_sentence(rlcar, file, words, sentence):
    code, _, err = _train(rlcar, *(file if word == "FILE" else word for word in words))
    assert code == 2
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err
    assert not Path("runs").exists()


def test_a_curriculum_needs_its_mode(rlcar, file):
    code, _, err = rlcar("train", "--curriculum", file)
    assert code == 2
    assert "--curriculum needs --mode curriculum" in err


def test_a_name_that_is_taken_and_another_file_are_refused(rlcar, file):
    folder = Path("runs/reaching")
    folder.mkdir(parents=True)
    begin_record(folder, curriculum(stage("a")))
    code, _, err = _train(rlcar, "--curriculum", file)
    assert code == 2
    assert "already holds a curriculum: continue it with" in " ".join(err.split())
    code, _, err = _train(rlcar, "--curriculum", file, "--resume", folder)
    assert code == 2
    assert (
        "is the state of another curriculum than the one given (both are called reaching"
        in " ".join(err.split())
    )


def test_a_curriculum_is_trained_from_its_file_to_its_end(rlcar, file):
    shown = ("--publish", "--registry", "models", "--page", "--page-port", "0")
    code, _, err = _train(rlcar, "--curriculum", file, "--name", "tour", "--resume", "auto", *shown)
    assert code == 0, err
    said = " ".join(err.split())
    assert "stage 2 of 2 (b), attempt 1 of 2" in said
    assert "all 2 stages are passed, after 512 env steps, 2 attempts and 0 regressions" in said
    passed = "runs/tour-s2-a1/checkpoints/step-000000256"
    assert Path(passed).is_dir()
    assert f"published: version 1 of models, the policy of {passed}" in said
    (version,) = Registry("models").versions()
    assert version.metadata["lineage"]["checkpoint"] == "step-000000256"
    report = Path("runs/tour/report.json")
    assert json.loads(report.read_text())["phase"] == "done"
    report.unlink()  # as if the process had been killed before it
    assert require_run(Path("runs/tour-s2-a1"))
    code, _, err = _train(rlcar, "--resume", "runs/tour")
    assert code == 0
    said = " ".join(err.split())
    assert "all 2 stages are passed" in said
    assert f"publish it with: rlcar models publish {passed}" in said
    code, _, err = _train(rlcar, "--resume", "runs/tour", *shown)
    assert code == 0
    assert f"published: version 1 of models, the policy of {passed}" in " ".join(err.split())
    assert len(Registry("models").versions()) == 1  # a supervisor may start it once more
    assert json.loads(report.read_text())["phase"] == "done"


def test_a_curriculum_that_fails_has_an_exit_code_that_no_supervisor_starts_again(rlcar, file):
    never = curriculum(stage("a", max_env_steps=256, attempts=1, mean_reward=100.0))
    file.write_text(yaml.safe_dump(never.model_dump(mode="json")))
    for words in (("--curriculum", file), ("--resume", "runs/reaching")):
        code, _, err = _train(rlcar, *words, "--publish", "--registry", "models")
        assert code == FAILED_EXIT_CODE == 3
        said = " ".join(err.split())
        assert "the curriculum failed in stage a" in said
        assert "1 attempts and 0 regressions; nothing is published" in said


def test_folders_of_runs_and_of_curricula_are_not_mixed(rlcar, file):
    run = Path("runs/reaching")
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    code, _, err = _train(rlcar, "--curriculum", file)
    assert code == 2
    assert "runs/reaching holds an ordinary run: choose another --name" in " ".join(err.split())
    assert [path.name for path in run.iterdir()] == ["run.json"]
    folder = Path("runs/tour")
    folder.mkdir()
    begin_record(folder, curriculum(stage("a")))
    code, _, err = rlcar("train", "--local", "--mode", "test", "--name", "tour")
    assert code == 2
    assert "runs/tour holds a curriculum: choose another --name" in " ".join(err.split())


def test_a_curriculum_that_ray_cannot_train_is_refused_before_it_begins(rlcar):
    code, _, err = rlcar("train", "--mode", "curriculum", "--curriculum", "grand-prix")
    assert code == 2
    said = " ".join(err.split())
    assert "stage 'wide-road': training.blocks_per_call = " in said
    assert "train with --local, or set it to 1" in said
    assert not Path("runs").exists()


def test_a_curriculum_continues_from_its_own_folder_and_through_a_link(rlcar, tmp_path):
    folder = Path("runs/reaching")
    folder.mkdir(parents=True)
    record = begin_record(folder, curriculum(stage("a", max_env_steps=256)))
    Path("link").symlink_to(folder.resolve())
    for resume in ("link", "runs/reaching/."):
        code, _, err = _train(rlcar, "--resume", resume)
        assert code == 0, err
    assert run_folder(record.folder, (0, 1)).is_dir()
    assert not list(tmp_path.glob("*-s1-a1"))
    for words in (("auto", "--name", "reaching-s1-a1"), ("runs/reaching-s1-a1",)):
        code, _, err = rlcar("train", "--local", "--resume", *words)
        assert code == 2
        assert "runs/reaching-s1-a1 is an attempt of the curriculum" in " ".join(err.split())
