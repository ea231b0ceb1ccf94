"""A training ends after its number of episodes, and a resumed one knows that it has ended."""

from rlcar.config import make_config
from rlcar.runs.completion import completion_of
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
