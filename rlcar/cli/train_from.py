"""The settings of `rlcar train --from`: another training goes on in a new run, by driving."""

from collections.abc import Sequence
from pathlib import Path

from rlcar.agents import algorithm_of
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
    UserError for a folder that is not a run and for data of an unknown world, and CheckpointError
    for a run without a checkpoint.
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
    tree = config.model_dump()
    if config.data.folder:
        tree = merge(tree, algorithm_of(config).fine_tuning)
    # Without a folder the run drives; the fingerprint stays for the lineage of its versions.
    tree["data"] = {"fingerprint": config.data.fingerprint}
    tree["training"] |= {"start_from": str(save.path.resolve()), "rollbacks": 0}
    for override in overrides:
        tree = merge(tree, parse_override(override))
    if seed is not None:
        tree["seed"] = seed
    return parse_config(tree)
