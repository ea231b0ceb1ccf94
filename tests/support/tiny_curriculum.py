"""A curriculum of the reaching environment whose stages PPO passes in a second each."""

from rlcar.training.curriculum.settings import Curriculum, parse_curriculum

ENVIRONMENT = "tests.support.reaching:Reaching-v0"
_BASE = {
    "preset": "ppo",
    "mode": "test",
    "env": ENVIRONMENT,
    "set": {
        "training.cars": 8,
        "training.block_length": 32,
        "training.evaluate_every_env_steps": 512,
        "training.checkpoint_every_s": 1e-9,
        "ppo.learning_rate": 3e-3,
        "ppo.epochs": 4,
    },
}


def stage(name: str, **changes) -> dict:
    """Returns a stage that any policy passes, with changes."""
    return {"name": name, "mean_reward": -100.0, "max_env_steps": 1024, "attempts": 2} | changes


def curriculum(*stages: dict, **changes) -> Curriculum:
    """Returns a validated curriculum of these stages."""
    tree = {"name": "reaching", "base": _BASE, "confirmation_episodes": 8, "stages": list(stages)}
    return parse_curriculum(tree | changes, "the test's curriculum")
