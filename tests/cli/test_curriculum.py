"""`rlcar train --mode curriculum`: what it refuses, and one curriculum from its file to its end."""

import json
from pathlib import Path

import pytest
import yaml

from rlcar.runs.folders import require_run
from rlcar.training.curriculum.record import begin_record
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
        (("--curriculum", "FILE", "--world", "classic", "--publish"), "--world, --publish"),
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
    assert "is the state of another curriculum (reaching)" in " ".join(err.split())


def test_a_curriculum_is_trained_from_its_file_to_its_end(rlcar, file):
    code, _, err = _train(rlcar, "--curriculum", file, "--name", "tour", "--resume", "auto")
    assert code == 0, err
    said = " ".join(err.split())
    assert "stage 2 of 2 (b), attempt 1 of 2" in said
    assert "all 2 stages are passed, after 512 env steps, 2 attempts and 0 regressions" in said
    assert json.loads(Path("runs/tour/report.json").read_text())["phase"] == "done"
    assert require_run(Path("runs/tour-s2-a1"))
    code, _, err = _train(rlcar, "--resume", "runs/tour")
    assert code == 0
    assert "all 2 stages are passed" in " ".join(err.split())
