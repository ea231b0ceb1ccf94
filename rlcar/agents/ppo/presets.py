"""Presets of PPO, as parts of the settings tree."""

from rlcar.agents.algorithm import Tree

# Each update learns from one whole block.
_PPO: Tree = {
    "algorithm": "ppo",
    "training": {"env_steps": 100_000, "block_length": 128, "evaluate_every_env_steps": 4096},
}

# Fewer, larger minibatches: many small ones would dominate the time of a compiled loop.
_FUSED_PPO: Tree = {
    "algorithm": "ppo",
    "ppo": {"minibatch_size": 1024, "epochs": 4, "learning_rate": 1e-3},
    "training": {
        "env_steps": 1_000_000,
        "cars": 64,
        "block_length": 64,
        "blocks_per_call": 4,
        "evaluate_every_env_steps": 16_384,
    },
}

# For the fastest laps: a short horizon values time highly, and little noise drives precisely.
_FAST_LAPS: Tree = {
    "algorithm": "ppo",
    "ppo": {
        "minibatch_size": 512,
        "epochs": 8,
        "discount": 0.95,
        "initial_log_deviation": -1.0,
    },
    "training": {
        "env_steps": 10_000_000,
        "cars": 32,
        "block_length": 128,
        "blocks_per_call": 8,
        "evaluate_every_env_steps": 200_000,
    },
}

# For the lander. The discount is close to 1: otherwise a late failure would cost less than an early
# one, and the policy would learn to fly away first.
_LANDER: Tree = {
    "algorithm": "ppo",
    "ppo": {
        "minibatch_size": 4096,
        "epochs": 4,
        "learning_rate": 1e-3,
        "discount": 0.9995,
        "lambda_": 0.98,
        "initial_log_deviation": -1.5,
    },
    "training": {
        "env_steps": 10_000_000,
        "cars": 256,
        "block_length": 128,
        "blocks_per_call": 4,
        "evaluate_every_env_steps": 262_144,
    },
}

# Atari with the values of Schulman et al. 2017, and of the implementations that reproduce them.
_ATARI: Tree = {
    "algorithm": "ppo",
    "environment": {"image_size_px": 84, "frame_stack": 4},
    "ppo": {
        "learning_rate": 2.5e-4,
        "epochs": 4,
        "minibatch_size": 256,
        "clip_ratio": 0.1,
        "entropy_scale": 0.01,
    },
    "training": {
        "env_steps": 10_000_000,
        "cars": 8,
        "block_length": 129,
        "evaluate_every_env_steps": 500_000,
    },
}

# For two cores: a tenth of the arithmetic for each image, and fewer passes over larger minibatches.
_ATARI_SMALL: Tree = {
    "algorithm": "ppo",
    "environment": {"image_size_px": 32, "frame_stack": 4},
    "ppo": {
        "image_units": 256,
        "learning_rate": 5e-4,
        "epochs": 3,
        "minibatch_size": 256,
        "clip_ratio": 0.1,
        "entropy_scale": 0.01,
    },
    "training": {
        "env_steps": 1_000_000,
        "cars": 16,
        "block_length": 65,
        "evaluate_every_env_steps": 100_000,
    },
}

PRESETS: dict[str, Tree] = {
    "ppo": _PPO,
    "recurrent-ppo": {**_PPO, "ppo": {"recurrent_units": 64, "minibatch_size": 512}},
    "fused-ppo": _FUSED_PPO,
    "fast-laps": _FAST_LAPS,
    "lander-ppo": _LANDER,
    "ppo-atari": _ATARI,
    "ppo-atari-small": _ATARI_SMALL,
}
