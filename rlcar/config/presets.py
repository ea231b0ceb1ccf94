"""Named changes to the settings of `rlcar.config`, as plain trees: presets, worlds, modes."""

from rlcar.agents import ALGORITHMS
from rlcar.agents.algorithm import Tree

# The presets of all algorithms, by name.
PRESETS: dict[str, Tree] = {
    name: tree for algorithm in ALGORITHMS.values() for name, tree in algorithm.presets.items()
}


def _grand_prix(stage: int) -> Tree:
    """Returns the race of one of five stages of rising difficulty; the fifth is the grand prix."""
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


# Named worlds; the five stages of the grand prix can be a curriculum.
WORLDS: dict[str, Tree] = {
    "classic": {},
    **{f"grand-prix-{stage}": _grand_prix(stage) for stage in range(1, 6)},
    "grand-prix": _grand_prix(5),
}

# `--mode test` makes networks and trainings so small that every part runs in seconds.
MODES: dict[str, Tree] = {
    "standard": {},
    "test": {
        "environment": {"image_size_px": 32, "time_limit_steps": 200},
        **{name: algorithm.test_mode for name, algorithm in ALGORITHMS.items()},
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
