"""The preset that SAC and TD3 share."""

from rlcar.agents.algorithm import Tree

Q_LEARNING: Tree = {
    # 256 transitions, which are windows of two steps, for each env step.
    "replay": {"batch_size": 256, "batch_length": 2, "samples_per_insert": 512.0},
    "training": {"env_steps": 20_000, "cars": 8, "block_length": 16},
}
