"""The settings of `rlcar train --from`: another training goes on in a new run, by driving."""

from collections.abc import Sequence
from pathlib import Path

from rlcar.agents import ALGORITHMS, algorithm_of
from rlcar.config import Config, load_config, merge, parse_config, parse_override
from rlcar.errors import CheckpointError, UserError
from rlcar.storage import checkpoint


def source_of(text: str, runs: Path, registry: str) -> Path:
    """Returns the run or checkpoint that `--from` means: a path, or that of a version's lineage.

    Raises UserError if the run of a version is not below `runs`.
    """
    if not text.isdecimal() or Path(text).exists():
        return Path(text)
    from rlcar.registry import Registry

    lineage = Registry(registry).version(int(text)).metadata["lineage"]
    folder = runs / str(lineage["run"])
    if not folder.is_dir():
        raise UserError(
            f"version {text} holds only a policy, and its run {lineage['run']}, which holds the "
            f"critics, is not below {runs}: copy the run there, or name another with --runs"
        )
    return folder


def continued_config(source: Path, overrides: Sequence[str], seed: int | None) -> Config:
    """Returns the settings of the run `source` for driving, with overrides.

    A run that learned from recorded data gets its algorithm's settings for fine-tuning. Raises
    UserError for a folder that is not a run, for data of an unknown world and for an algorithm that
    does not drive, and CheckpointError for a run without a checkpoint.
    """
    from rlcar.runs.run import find_save

    save = find_save(source.parent, str(source), None)
    if save is None:
        raise CheckpointError(f"{source} holds no complete checkpoint yet: train it first")
    config = load_config(checkpoint.config_path(save))
    if not config.data.has_environment:
        raise UserError(
            f"{source} learned from data whose environment cannot be made here, so nothing can "
            "drive there: name a run of the race or of a Gymnasium environment"
        )
    algorithm = algorithm_of(config)
    if not algorithm.learns_online:
        both = [
            name for name, each in ALGORITHMS.items() if each.learns_offline and each.learns_online
        ]
        raise UserError(
            f"{source} was trained with {algorithm.name}, which learns from recorded data alone: "
            f"train with --algorithm {' or '.join(both)} on the same data, and continue that run"
        )
    tree = config.model_dump()
    if config.data.folder:
        tree = merge(tree, algorithm.fine_tuning)
    # Without a folder the run drives; the fingerprints stay for the lineage of its versions.
    tree["data"] = {"fingerprint": config.data.fingerprint, "origins": config.data.origins}
    tree["training"] |= {"start_from": str(save.path.resolve()), "rollbacks": 0}
    for override in overrides:
        tree = merge(tree, parse_override(override))
    if seed is not None:
        tree["seed"] = seed
    return parse_config(tree)
