"""Makes and closes Gymnasium environments, including those of modules in the current folder."""

import functools
import logging
import os
import sys
from typing import Any

import gymnasium

from rlcar.config import EnvironmentConfig
from rlcar.envs.compiled import has_own_time_limit
from rlcar.errors import ConfigError

# The folder in which the training was started. Other processes with the same files also search it
# for modules.
FOLDER = "RLCAR_ENVIRONMENT_FOLDER"

logger = logging.getLogger(__name__)


def make_environment(config: EnvironmentConfig, render_mode: str | None = None) -> gymnasium.Env:
    """Makes one environment, which the caller must close.

    It draws itself in `render_mode`, as Gymnasium defines them.

    An id `module:name` imports the module first, which is also searched in the current folder after
    the installed modules. Raises ConfigError with the reason if the environment cannot be made.
    """
    arguments: dict[str, Any] = dict(config.settings)
    if config.time_limit_steps is not None:
        # Gymnasium's own limit would end an episode without a reason.
        if has_own_time_limit(config.id):
            arguments.setdefault("time_limit_steps", config.time_limit_steps)
        else:
            arguments["max_episode_steps"] = config.time_limit_steps
    if render_mode is not None:
        arguments["render_mode"] = render_mode
    if ":" in config.id:
        _search_the_current_folder()
    try:
        return gymnasium.make(config.id, disable_env_checker=True, **arguments)
    except Exception as error:  # Code of the environment runs here and may raise anything.
        given = f" with environment.settings {config.settings}" if config.settings else ""
        raise ConfigError(
            f"environment.id = {config.id!r}{given}: {first_line(error)}; name it as module:id if "
            "its package must be imported first, for example ale_py:ALE/Pong-v5, or "
            "my_module:My-v0 for a my_module.py in the current folder"
        ) from error


def close_environment(env: gymnasium.Env, name: str) -> None:
    """Closes an environment; a failure is only a warning, because all results are complete."""
    try:
        env.close()
    except Exception as error:  # Code of the environment runs here and may raise anything.
        warn_once(
            f"the environment {name} failed to close ({type(error).__name__}: "
            f"{first_line(error)}); nothing else is affected"
        )


@functools.cache
def warn_once(text: str) -> None:
    """Logs a warning, but the same text only once in this process."""
    logger.warning(text)


def first_line(error: Exception) -> str:
    """Returns the first line of an error message, at most 300 characters of it."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]


def inherited() -> dict[str, str]:
    """Returns the environment variables with which other processes find the same modules."""
    folder = os.environ.get(FOLDER) or _current_folder()
    return {FOLDER: folder} if folder else {}


def _search_the_current_folder() -> None:
    """Adds the current folder to the module search path, as `python -m` does."""
    # At the end of the path, so that a file there cannot replace an installed package.
    for folder in (os.environ.get(FOLDER), _current_folder()):
        if folder and folder not in sys.path:
            sys.path.append(folder)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # The folder was deleted.
        return None
