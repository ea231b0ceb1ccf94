"""Named changes to the settings of `rlcar.config`, as plain trees: presets, worlds, modes."""

from typing import Any

Tree = dict[str, Any]

# size12m of the public code (danijar/dreamerv3, configs.yaml): deter 2048, hidden 256, 32 x 16
# latents, units 256, three-layer encoder, decoder, policy and value, 16 x 64 batches.
_MEDIUM: Tree = {
    "dreamer": {
        "world_model": {
            "recurrent_units": 2048,
            "hidden_units": 256,
            "latent_groups": 32,
            "latent_classes": 16,
            "units": 256,
            "encoder_layers": 3,
            "decoder_layers": 3,
        },
        "actor_critic": {"units": 256, "layers": 3, "imagination_last": 64},
    },
    "replay": {"batch_length": 64, "capacity_env_steps": 5_000_000},
    "training": {"env_steps": 1_000_000},
}

# size1m of the public code: deter 512, hidden 64, 32 x 4 latents, units 64.
_SMALL: Tree = {
    "dreamer": {
        "world_model": {
            "recurrent_units": 512,
            "latent_groups": 32,
            "latent_classes": 4,
            "encoder_layers": 3,
            "decoder_layers": 3,
        },
        "actor_critic": {"layers": 3, "imagination_last": 64},
        "optimizer": {"learning_rate": 1e-4},
    },
    "replay": {"batch_length": 64},
    "training": {"env_steps": 200_000},
}

_NANO_SIZE: Tree = {
    "recurrent_units": 128,
    "hidden_units": 128,
    "latent_groups": 16,
    "units": 128,
}

# Found by trial on both worlds and two cores: docs/experiments.md.
_NANO: Tree = {
    "dreamer": {
        "world_model": {
            **_NANO_SIZE,
            "reconstruction_scale": 20.0,
            "open_loop_scale": 0.3,
            "open_loop_dynamics_scale": 0.1,
        },
        # Few dreams of each window and more windows: the same env steps in two thirds of the time.
        "actor_critic": {
            "discount_horizon": 100.0,
            "slow_value_rate": 0.1,
            "imagination_last": 4,
        },
        "optimizer": {"learning_rate": 1e-3, "warmup_updates": 30},
    },
    "replay": {"batch_size": 8, "min_env_steps": 512, "samples_per_insert": 64.0},
    "training": {
        "env_steps": 24_576,
        "cars": 8,
        "block_length": 32,
        "evaluate_every_env_steps": 1024,
    },
}

# What `nano` needs where crashes come from what it cannot see.
_NANO_GRAND_PRIX: Tree = {
    "dreamer": {
        "world_model": {**_NANO_SIZE, "reconstruction_scale": 20.0, "open_loop_scale": 1.0},
        "actor_critic": {
            "discount_horizon": 333.0,
            "entropy_scale": 3e-3,
            "slow_value_rate": 0.1,
            # The newest policies drive unlike each other; their mean is steady: experiments.md.
            "policy_average_rate": 2e-3,
        },
        "optimizer": {"learning_rate": 6e-4, "warmup_updates": 100},
    },
    "replay": {**_NANO["replay"], "samples_per_insert": 48.0},
    "training": {**_NANO["training"], "env_steps": 100_000, "evaluate_every_env_steps": 4096},
}

_DOCUMENTED: Tree = {
    "algorithm": "documented",
    # Its updates cost a millisecond, so it can afford many.
    "replay": {"batch_size": 32, "batch_length": 16, "samples_per_insert": 64.0},
    "training": {"env_steps": 65_536, "evaluate_every_env_steps": 4096},
}

# Scales that fit numbers of any size, as in the public code; the race's own are in [0, 1].
_GYMNASIUM: Tree = {
    "dreamer": {
        "world_model": {
            **_NANO_SIZE,
            "image_depth": 8,
            "image_scale": 5.0,
            "observation_scale": 1.0,
            "reconstruction_scale": 1.0,
        },
        # A policy that stops trying while the images are still a blur is long in coming back.
        "actor_critic": {"units": 128, "entropy_scale": 3e-3},
        "optimizer": {"learning_rate": 1e-3, "warmup_updates": 100},
    },
    "replay": {"batch_size": 8, "samples_per_insert": 32.0, "capacity_env_steps": 100_000},
    "training": {"cars": 8, "block_length": 32},
}

# A block is what an update learns from, whole.
_PPO: Tree = {
    "algorithm": "ppo",
    "training": {"env_steps": 100_000, "block_length": 128, "evaluate_every_env_steps": 4096},
}

# Fewer, larger minibatches: small ones are what a compiled loop waits for.
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

# The fastest laps: a short horizon makes time dear, little noise makes the line fine.
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

_Q_LEARNING: Tree = {
    # 256 transitions, which are windows of two steps, for each env step.
    "replay": {"batch_size": 256, "batch_length": 2, "samples_per_insert": 512.0},
    "training": {"env_steps": 20_000, "cars": 8, "block_length": 16},
}

PRESETS: dict[str, Tree] = {
    "nano": _NANO,
    "nano-grand-prix": _NANO_GRAND_PRIX,
    "small": _SMALL,
    "medium": _MEDIUM,
    "gymnasium": _GYMNASIUM,
    "documented": _DOCUMENTED,
    "ppo": _PPO,
    "recurrent-ppo": {**_PPO, "ppo": {"recurrent_units": 64, "minibatch_size": 512}},
    "fused-ppo": _FUSED_PPO,
    "fast-laps": _FAST_LAPS,
    "sac": {"algorithm": "sac", **_Q_LEARNING},
    "td3": {"algorithm": "td3", **_Q_LEARNING},
}

# What `--algorithm` alone stands for.
PRESET_OF: dict[str, str] = {
    "dreamer": "nano",
    "documented": "documented",
    "ppo": "ppo",
    "sac": "sac",
    "td3": "td3",
}


def _grand_prix(stage: int) -> Tree:
    """Returns one of five stages towards the whole grand prix, which is the fifth."""
    part = (stage - 1) / 4
    return {
        "race": {
            "track": {
                "points": 120,
                "noise_amplitude": 0.4 + 0.1 * part,
                "noise_harmonics": 4 + stage,
                "half_width_px": 40.0,
                "half_width_low_px": 38.0 - 20.0 * part,
                "obstacles": 2 * (stage - 1),
                "obstacle_radius_px": 8.0,
                "obstacle_placement": "road",
                "obstacle_gap_px": 16.0,
            },
            "vehicle": {
                "model": "single_track",
                "top_speed_px_per_step": 6.0 + 2.0 * part,
                "grip_px_per_step2": {"low": 0.45 - 0.2 * part, "high": 0.5},
                "delay_steps": {"low": 0.0, "high": (0.0, 0.0, 1.0, 2.0, 3.0)[stage - 1]},
            },
            "sensors": {
                "noise_px": {"low": 0.0, "high": 12.0 * part},
                "dropout": {"low": 0.0, "high": 0.2 * part},
            },
            "rival": {"radius_px": 8.0, "pace_px_per_step": 3.0} if stage == 5 else None,
        }
    }


# The worlds of the contract; a stage of the grand prix is a rung for a curriculum.
WORLDS: dict[str, Tree] = {
    "classic": {},
    **{f"grand-prix-{stage}": _grand_prix(stage) for stage in range(1, 6)},
    "grand-prix": _grand_prix(5),
}

# `--mode test` shrinks whatever preset it meets, so that every part runs in seconds.
MODES: dict[str, Tree] = {
    "standard": {},
    "test": {
        "environment": {"image_size_px": 32, "time_limit_steps": 200},
        "dreamer": {
            "world_model": {
                "recurrent_units": 64,
                "hidden_units": 32,
                "latent_groups": 4,
                "latent_classes": 4,
                "units": 32,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "image_depth": 4,
            },
            "actor_critic": {"units": 32, "layers": 1, "imagination_last": 8},
        },
        **{name: {"hidden_units": 32} for name in ("ppo", "sac", "td3")},
        "replay": {
            "batch_size": 8,
            "batch_length": 16,
            "min_env_steps": 512,
            "samples_per_insert": 16.0,
        },
        "training": {
            "env_steps": 8192,
            "cars": 8,
            "block_length": 32,
            "evaluate_every_env_steps": 4096,
        },
    },
}
