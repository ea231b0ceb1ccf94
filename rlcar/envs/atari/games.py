"""Recognises the ids of Atari games, and says what is missing when a game cannot be made."""

import re
from typing import Any, NamedTuple

import gymnasium

from rlcar.config import EnvironmentConfig
from rlcar.errors import ConfigError, reason_of
from rlcar.settings.explain import nearest

_ID = re.compile(r"(?:ale_py:)?ALE/(?P<name>[A-Za-z0-9]+)-v5")
_NO_ALE = "ale-py is not installed: pip install 'rlcar[atari]'"


class Game(NamedTuple):
    """An Atari game in the names of the two libraries."""

    name: str  # such as MsPacman
    rom: str  # such as ms_pacman


def is_atari_game(config: EnvironmentConfig) -> bool:
    """Returns whether an environment is an Atari game with the rules of `environment.atari`.

    With `environment.settings` a game is an environment of Gymnasium like every other. Raises
    ConfigError if the chosen back end makes Atari games alone and this is another environment.
    """
    is_game = _ID.fullmatch(config.id) is not None and not config.settings
    if config.backend in ("ale", "envpool") and not is_game:
        given = f" with environment.settings {config.settings}" if config.settings else ""
        raise ConfigError(
            f"environment.backend = {config.backend} makes Atari games alone, whose ids have the "
            f"form ALE/NAME-v5, and without environment.settings, but not {config.id!r}{given}: "
            "leave environment.backend out"
        )
    return is_game


def name_of(config: EnvironmentConfig) -> str:
    """Returns the name of a game in its id, such as `MsPacman`."""
    match = _ID.fullmatch(config.id)
    assert match is not None, config.id
    return match["name"]


def find_game(config: EnvironmentConfig) -> Game:
    """Returns a game of ale-py.

    Raises ConfigError if ale-py is not installed, has no such game, or has no ROM for it.
    """
    ale_py = import_ale()
    gymnasium.register_envs(ale_py)
    name = name_of(config)
    if f"ALE/{name}-v5" not in gymnasium.registry:
        require_known(
            config, [_name(known) for known in gymnasium.registry if _ID.fullmatch(known)]
        )
    rom = str(gymnasium.spec(f"ALE/{name}-v5").kwargs["game"])
    try:
        path = ale_py.roms.get_rom_path(rom)
        problem = "ale-py knows none of that name"
    except OSError as error:  # also for another content than expected
        path, problem = None, reason_of(error).partition("\n")[0]
    if path is None:
        raise ConfigError(
            f"environment.id = {config.id!r}: the ROM {rom}.bin cannot be used ({problem}): "
            "install ale-py again, or correct ALE_ROMS_DIR"
        )
    return Game(name, rom)


def import_ale() -> Any:
    """Imports ale-py, which then only logs errors; raises ConfigError if it is not installed."""
    try:
        import ale_py
        import ale_py.roms
    except ImportError as error:
        raise ConfigError(_NO_ALE) from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


def require_known(config: EnvironmentConfig, known: list[str]) -> None:
    """Raises ConfigError, with the nearest name, for a game that is not among the known ones."""
    name = name_of(config)
    if name not in known:
        raise ConfigError(
            f"environment.id = {config.id!r}: there is no Atari game {name!r}{nearest(name, known)}"
        )


def _name(game_id: str) -> str:
    return game_id.removeprefix("ALE/").removesuffix("-v5")
