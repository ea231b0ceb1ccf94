"""Presets of the world-model agent, as parts of the settings tree."""

from rlcar.agents.algorithm import Tree

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
        # Few imagined trajectories from each of more windows: as good, in two thirds of the time.
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

# Changes to `nano` for a world where hidden quantities cause crashes.
_NANO_GRAND_PRIX: Tree = {
    "dreamer": {
        "world_model": {**_NANO_SIZE, "reconstruction_scale": 20.0, "open_loop_scale": 1.0},
        "actor_critic": {
            "discount_horizon": 333.0,
            "entropy_scale": 3e-3,
            "slow_value_rate": 0.1,
            # Successive policies drive differently; their average is stable: docs/experiments.md.
            "policy_average_rate": 2e-3,
        },
        "optimizer": {"learning_rate": 6e-4, "warmup_updates": 100},
    },
    "replay": {**_NANO["replay"], "samples_per_insert": 48.0},
    "training": {**_NANO["training"], "env_steps": 100_000, "evaluate_every_env_steps": 4096},
}

# Scales for observations of any size, as in the public code; those of the race are in [0, 1].
_GYMNASIUM: Tree = {
    "dreamer": {
        "world_model": {
            **_NANO_SIZE,
            "image_depth": 8,
            "image_scale": 5.0,
            "observation_scale": 1.0,
            "reconstruction_scale": 1.0,
        },
        # A policy that stops exploring before the images are learnt takes long to recover.
        "actor_critic": {"units": 128, "entropy_scale": 3e-3},
        "optimizer": {"learning_rate": 1e-3, "warmup_updates": 100},
    },
    "replay": {"batch_size": 8, "samples_per_insert": 32.0, "capacity_env_steps": 100_000},
    "training": {"cars": 8, "block_length": 32},
}

PRESETS: dict[str, Tree] = {
    "nano": _NANO,
    "nano-grand-prix": _NANO_GRAND_PRIX,
    "small": _SMALL,
    "medium": _MEDIUM,
    "gymnasium": _GYMNASIUM,
}

# For recorded data. Each window is used about as often as the preset `nano` uses it online.
OFFLINE: Tree = {
    "dreamer": {"uncertainty": {"heads": 5}},
    "replay": {"samples_per_insert": 8.0},
    "training": {
        "env_steps": 200_000,
        "cars": 16,
        "block_length": 64,
        "evaluate_every_env_steps": 20_000,
    },
}

# For going on by driving, where the policy itself finds out what is not certain.
FINE_TUNING: Tree = {
    "dreamer": {"uncertainty": {"penalty": 0.0}},
    "replay": {"samples_per_insert": 64.0},
    "training": {"env_steps": 24_576, "evaluate_every_env_steps": 1024},
}

TEST_MODE: Tree = {
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
}
