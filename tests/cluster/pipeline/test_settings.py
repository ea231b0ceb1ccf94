"""Mistakes in the file of a pipeline are one sentence each."""

import re
from pathlib import Path

import pytest

from cluster.pipeline.settings import parse_duration, parse_settings, read_settings
from rlcar.errors import ConfigError
from rlcar.settings.files import parse_yaml

PAGE = Path(__file__).parents[3] / "docs/how-to/continuous-learning.md"

COLLECT = {"recordings": "sessions"}


def test_the_defaults_are_a_whole_pipeline():
    settings = parse_settings({"collect": COLLECT}, "nightly")
    assert (settings.name, settings.folder) == ("nightly", "pipelines/nightly")
    assert settings.train.offline is not None
    assert settings.gates.simulation is not None
    steps = settings.rollout.steps()
    assert steps[0].shadow is not None
    assert [step.set_weight for step in steps if step.set_weight] == [10.0, 50.0]
    assert parse_settings(settings.tree(), "x") == settings


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "collect: missing"),
        ({"collect": COLLECT, "gate": {}}, "unknown setting 'gate'; did you mean 'gates'?"),
        (
            {"collect": COLLECT | {"minimumEpisode": 5}},
            "unknown setting 'collect.minimumEpisode'; did you mean 'minimumEpisodes'?",
        ),
        (
            {"collect": COLLECT, "train": {"offline": {}, "fineTune": {}}},
            "a candidate comes from one of offline and fineTune, not offline and fineTune",
        ),
        ({"collect": COLLECT, "train": {}}, "not nothing"),
        ({"collect": COLLECT, "gates": {}}, "gates need simulation, offPolicyEvaluation or both"),
        (
            {"collect": COLLECT | {"minimumEpisodes": 9}, "gates": {"offPolicyEvaluation": {}}},
            "collect.minimumEpisodes 9 must be at least 50",
        ),
        (
            {
                "collect": COLLECT,
                "rollout": {"strategy": {"canary": {"steps": [{"setWeight": 101}]}}},
            },
            "rollout.strategy.canary.steps.0.setWeight = 101",
        ),
        (
            {
                "collect": COLLECT,
                "rollout": {"strategy": {"blueGreen": {}}, "gates": {"simulation": {}}},
            },
            "a pipeline runs the gates itself: move them out of rollout",
        ),
        ({"collect": COLLECT, "rolloutTimeout": "soon"}, "a duration is a number with a unit"),
        ({"collect": COLLECT, "name": "a/b"}, "name = 'a/b'"),
        (
            {"collect": COLLECT, "train": {"offline": {"algorithms": ["bc", "cqll"]}}},
            "train.offline.algorithms.1 = 'cqll': no algorithm that learns from recorded data; did "
            "you mean 'cql'?",
        ),
        (
            {"collect": COLLECT, "train": {"offline": {"settings": ["training.env_step=5"]}}},
            "unknown setting 'training.env_step'; did you mean 'env_steps'?",
        ),
        (
            {"collect": COLLECT, "train": {"fineTune": {"settings": ["training.env_steps=many"]}}},
            "train.fineTune.settings.0 = 'training.env_steps=many': training.env_steps = 'many'",
        ),
        (
            {"collect": COLLECT, "train": {"fineTune": {"settings": ["training.env_steps"]}}},
            "is not of the form section.name=value",
        ),
    ],
)
def test_a_mistake_names_the_key_and_the_nearest_name(tree, said):
    with pytest.raises(ConfigError) as caught:
        parse_settings(tree, "nightly")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_only_fits_together_with_others_is_left_to_the_training():
    # Longer than the default of training.block_length, which another setting may raise.
    settings = ["replay.batch_length=500", "training.block_length=500"]
    tree = {"collect": COLLECT, "train": {"offline": {"settings": settings}}}
    assert parse_settings(tree, "nightly").train.offline.settings == settings


def test_a_file_is_named_in_its_mistakes(tmp_path):
    path = tmp_path / "my pipeline.yaml"
    path.write_text("collect: {recordings: sessions}")
    with pytest.raises(ConfigError, match=r"my pipeline.yaml: the pipeline cannot be called"):
        read_settings(path)
    path.write_text("- collect")
    with pytest.raises(ConfigError, match=r"my pipeline.yaml"):
        read_settings(path)
    with pytest.raises(ConfigError, match=r"--interval 'often': a duration is a number with"):
        parse_duration("--interval", "often")


def test_the_file_of_the_page_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert parse_settings(parse_yaml(text), "nightly").collect.minimum_episodes == 500
