"""Which versions of a registry are old enough to be deleted."""

from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta

from rlcar.errors import RegistryError
from rlcar.registry.version import Version


def expired(versions: Iterable[Version], kept: Set[int], days: float, newest: int) -> list[int]:
    """Returns the numbers of versions older than `days`, but for those in `kept` and the newest.

    `versions` begin with the newest. Raises RegistryError for limits that cannot be.
    """
    if newest < 1 or not 0 <= days <= 36_500:
        raise RegistryError(
            f"cannot keep versions of {days} days and the {newest} newest: keep at least 1 and "
            "0 to 36,500 days"
        )
    limit = datetime.now(UTC) - timedelta(days=days)
    return [
        version.number
        for version in [*versions][newest:]
        if version.number not in kept and datetime.fromisoformat(version.created) < limit
    ]
