"""Names of the versions that a gate compares."""

from rlcar.errors import UserError
from rlcar.registry import Model


def version_name(model: Model) -> str:
    """Returns what reports call a version."""
    return f"version {model.version.number}"


def require_different(candidate: Model, stable: Model) -> None:
    """Raises UserError if there is nothing to compare."""
    if candidate.version.number == stable.version.number:
        raise UserError(
            f"{version_name(candidate)} cannot be compared with itself: name another version"
        )
