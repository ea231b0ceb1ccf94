"""The presets that SAC and TD3 share."""

from rlcar.agents.algorithm import Tree

_Q_LEARNING: Tree = {
    # 256 transitions, which are windows of two steps, for each env step.
    "replay": {"batch_size": 256, "batch_length": 2, "samples_per_insert": 512.0},
    "training": {"env_steps": 20_000, "cars": 8, "block_length": 16},
}


def q_learning_presets(algorithm: str, **lander: float) -> dict[str, Tree]:
    """Returns the general preset and the one for the lander, whose section has `lander` too."""
    learner = {
        "hidden_units": 128,
        "learning_rate": 6e-4,
        # Episodes take hundreds of steps, and their ends decide. With returns of a single step it
        # takes tens of thousands of updates until the critics know of a crash at the start.
        "discount": 0.999,
        "return_steps": 32,
        "slow_rate": 0.01,
        "reward_scale": 0.01,
        **lander,
    }
    return {
        algorithm: {"algorithm": algorithm, **_Q_LEARNING},
        f"lander-{algorithm}": {
            "algorithm": algorithm,
            algorithm: learner,
            "replay": {"batch_size": 8, "batch_length": 33, "samples_per_insert": 66.0},
            "training": {
                "env_steps": 400_000,
                "cars": 16,
                "block_length": 64,
                "evaluate_every_env_steps": 20_000,
            },
        },
    }
