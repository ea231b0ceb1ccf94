"""The validated settings tree: every learning setting, presets and dotted overrides."""

from rlcar.config.tree import (
    Config,
    DataConfig,
    EnvironmentConfig,
    ReplayConfig,
    TrainingConfig,
    dump_config,
    load_config,
    make_config,
    make_race_config,
    merge,
    nearest,
    parse_config,
    parse_override,
)

__all__ = [
    "Config",
    "DataConfig",
    "EnvironmentConfig",
    "ReplayConfig",
    "TrainingConfig",
    "dump_config",
    "load_config",
    "make_config",
    "make_race_config",
    "merge",
    "nearest",
    "parse_config",
    "parse_override",
]
