"""The preset that the algorithms for recorded data share."""

from rlcar.agents.algorithm import Tree

RECORDED: Tree = {
    "replay": {"batch_size": 256, "batch_length": 2, "samples_per_insert": 4.0},
    "training": {
        "env_steps": 1_000_000,
        "cars": 16,
        "block_length": 64,
        "evaluate_every_env_steps": 200_000,
    },
}

# For the grand prix, where laps take hundreds of steps. With a discount of 0.99 a driver that
# crashes after 78 fast steps has the same return as one that survives 343 slow ones.
FAR_SIGHTED: Tree = {"discount": 0.997, "reward_scale": 0.05}

# For going on by driving: one train step for each four env steps, at first all of whose samples are
# recorded ones.
FINE_TUNING: Tree = {
    "replay": {"samples_per_insert": 128.0},
    "training": {"env_steps": 100_000, "evaluate_every_env_steps": 4096},
}
