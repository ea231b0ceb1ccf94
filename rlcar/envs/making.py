"""Makes environments of Gymnasium, finds their modules, and closes them."""

import functools
import logging
import os
import sys

import gymnasium

from rlcar.config import EnvironmentConfig
from rlcar.errors import ConfigError

# The folder in which the training was started: processes on the same files look for modules there.
FOLDER = "RLCAR_ENVIRONMENT_FOLDER"

logger = logging.getLogger(__name__)


def make_environment(config: EnvironmentConfig) -> gymnasium.Env:
    """Makes one environment, which the caller has to close.

    Raises ConfigError, with the reason, when that fails. A module that is named as `module:id` is
    also searched in the current folder, after the installed ones.
    """
    limit = (
        {} if config.time_limit_steps is None else {"max_episode_steps": config.time_limit_steps}
    )
    if ":" in config.id:
        _search_the_current_folder()
    try:
        return gymnasium.make(config.id, disable_env_checker=True, **limit)
    except Exception as error:  # its own code runs, which may raise anything
        raise ConfigError(
            f"environment.id = {config.id!r}: {first_line(error)}; name it as module:id when its "
            "package has to be imported first, e.g. ale_py:ALE/Pong-v5 or my_module:My-v0 for a "
            "my_module.py in the current folder"
        ) from error


def close_environment(env: gymnasium.Env, name: str) -> None:
    """Closes it; that environments fail to close costs one warning and no result."""
    try:
        env.close()
    except Exception as error:  # its own code runs, which may raise anything
        warn_once(
            f"the environment {name} failed to close ({type(error).__name__}: "
            f"{first_line(error)}); nothing else is affected"
        )


@functools.cache
def warn_once(text: str) -> None:
    """Warns; in this process the same text is not repeated, as many environments are alike."""
    logger.warning(text)


def first_line(error: Exception) -> str:
    """The first line of an environment's error message, shortened where it is very long."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]


def inherited() -> dict[str, str]:
    """The variables with which processes elsewhere find the modules that this process finds."""
    folder = os.environ.get(FOLDER) or _current_folder()
    return {FOLDER: folder} if folder else {}


def _search_the_current_folder() -> None:
    """Adds it to the module search path, as `python -m` does and a console script does not."""
    # At the end: a file there must not replace an installed package.
    for folder in (os.environ.get(FOLDER), _current_folder()):
        if folder and folder not in sys.path:
            sys.path.append(folder)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None
