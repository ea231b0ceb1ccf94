"""Ray's authentication token: finds it in the same places and order as Ray does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rlcar.errors import UserError
from rlcar.system.user_folders import home_folder


class RayToken(NamedTuple):
    """Ray's token and where it was found; its value is never printed."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"RayToken(from {self.source})"


def find_token(environment: Mapping[str, str] | None = None) -> RayToken | None:
    """Returns the token that Ray itself would use; None if there is none.

    Raises UserError for a RAY_AUTH_TOKEN_PATH that cannot be read.
    """
    environment = os.environ if environment is None else environment
    if value := environment.get("RAY_AUTH_TOKEN", "").strip():
        return RayToken(value, "RAY_AUTH_TOKEN")
    if named := environment.get("RAY_AUTH_TOKEN_PATH"):
        try:
            value = Path(named).read_text().strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text file"
            raise UserError(
                f"RAY_AUTH_TOKEN_PATH names {named}, which cannot be read: {reason}"
            ) from error
        if not value:
            raise UserError(f"RAY_AUTH_TOKEN_PATH names {named}, which is empty")
        return RayToken(value, f"{named} (RAY_AUTH_TOKEN_PATH)")
    path = token_path(environment)
    if path is None:
        return None
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeError):
        return None
    return RayToken(value, str(path)) if value else None


def token_path(environment: Mapping[str, str] | None = None) -> Path | None:
    """Returns the path of this user's token file; None for a user without a home folder."""
    home = (os.environ if environment is None else environment).get("HOME") or home_folder()
    return None if home is None else Path(home) / ".ray" / "auth_token"
