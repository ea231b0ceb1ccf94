"""Handles a NaN: returns to the last good checkpoint with a lower learning rate, at most twice."""

import logging
from pathlib import Path
from typing import Any

import jax

from rlcar.agents import algorithm_of
from rlcar.config import Config, parse_config
from rlcar.errors import NonFiniteError
from rlcar.storage import checkpoint

MOST_ROLLBACKS = 2
FACTOR = 0.5

logger = logging.getLogger(__name__)


def roll_back(
    error: NonFiniteError, config: Config, checkpoints: Path
) -> tuple[Config, checkpoint.Save | None]:
    """Returns the settings and the save to continue with; None means the beginning.

    Raises NonFiniteError, with what to do, after `MOST_ROLLBACKS`, and at once with `--debug-nans`.
    """
    dotted = algorithm_of(config).learning_rate_name
    done = config.training.rollbacks
    is_looking_for_nans = jax.config.jax_debug_nans  # type: ignore[attr-defined]
    if done >= MOST_ROLLBACKS or is_looking_for_nans:
        tried = f" after {done} returns to the last good checkpoint with half the {dotted}"
        raise NonFiniteError(
            f"{error}: training stopped{tried if done else ''}; no checkpoint was changed. Resume "
            f"with a lower {dotted} and training.rollbacks=0. If that does not help, look for very "
            "large observations or rewards, and scale them in the environment"
        ) from error
    if config.training.deterministic:
        raise NonFiniteError(
            f"{error}: training stopped; no checkpoint was changed. With training.deterministic "
            "there is no automatic return to a checkpoint, because the time of the newest one "
            f"is not reproducible. Resume with a lower {dotted}"
        ) from error
    save = checkpoint.latest_sound(checkpoints)
    lower = with_lower_learning_rate(config)
    logger.warning(
        "%s: returning to %s with half the %s (%d of %d)",
        error,
        save.path.name if save else "the beginning",
        dotted,
        done + 1,
        MOST_ROLLBACKS,
    )
    return lower, save


def with_lower_learning_rate(config: Config) -> Config:
    """Halves the algorithm's learning rate and counts it."""
    tree = config.model_dump()
    *sections, name = algorithm_of(config).learning_rate_name.split(".")
    section: dict[str, Any] = tree
    for part in sections:
        section = section[part]
    section[name] *= FACTOR
    tree["training"]["rollbacks"] += 1
    return parse_config(tree)
