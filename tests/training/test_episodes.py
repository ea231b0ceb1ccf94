"""A training ends after its number of episodes, and a resumed one knows that it has ended."""

import pytest

from rlcar.config import make_config
from rlcar.runs.completion import completion_of, expected_env_steps
from rlcar.runs.run import find_save
from rlcar.training.loop import train


def test_a_training_ends_after_its_number_of_episodes(tmp_path):
    config = make_config(
        mode="test",
        algorithm="ppo",
        environment="rlcar/Catch-v0",
        overrides=[
            "environment.image_size_px=16",
            "training.cars=2",
            "training.episodes=5",
            "ppo.image_units=8",
        ],
    )
    outcome = train(config, tmp_path / "run")
    # A block of 32 time steps of two cars holds eight episodes of eight time steps.
    assert outcome.summary["env_steps"] == 64
    assert completion_of(tmp_path / "run").is_complete
    save = find_save(tmp_path, str(tmp_path / "run"), None)
    assert save.meta["episodes"] == 8
    assert train(config, tmp_path / "run", save).summary["env_steps"] == 64


@pytest.mark.parametrize(
    ("limit", "episodes", "length_env_steps", "expected"),
    [
        (None, 5, 9.0, 1_000),
        (10, 5, 9.0, 300 + 5 * 10),
        (10, 0, None, None),
        (10, 0, float("nan"), None),
        (10, 12, 9.0, 300),
        (500, 5, 9.0, 1_000),  # the limit of env steps comes first
    ],
)
def test_the_expected_end_is_that_of_the_limit_that_comes_first(
    limit, episodes, length_env_steps, expected
):
    training = make_config(
        overrides=["training.env_steps=1000", *([f"training.episodes={limit}"] if limit else [])]
    ).training
    assert expected_env_steps(training, 300, episodes, length_env_steps) == expected
