"""Removes the files of publications that were killed before they were complete."""

import time

from rlcar.registry.journal import FOLDER
from rlcar.registry.store import CLAIM, Store
from rlcar.registry.version import DELETED, MANIFEST, number_of
from rlcar.system.durable import WRITING

# A publication takes seconds. One that continues after a day finds its files deleted and fails, so
# no incomplete version is ever published.
LEFT_AFTER_S = 24 * 3600.0


def remove_leftovers(store: Store) -> list[str]:
    """Deletes old unfinished files and old files of versions without a manifest; lists them.

    A file's age is the time between its last change and the newest change in the same folder. Both
    are times of the store's clock, so a host whose clock is ahead does not delete files that others
    are writing. A time in the future counts as now. The numbers of such versions stay taken.
    """
    left = []
    for folder in ("versions", "aliases", FOLDER):
        times = store.modified(folder)
        complete = {
            number_of(name) for name in times if name.partition("/")[2] in (MANIFEST, DELETED)
        }
        newest = min(max(times.values(), default=0.0), time.time())
        for name, time_s in times.items():
            file = name.rpartition("/")[2]
            number = number_of(name) if folder == "versions" else None
            is_of_no_version = (
                number is not None and number not in complete and not file.startswith(CLAIM)
            )
            if newest - time_s > LEFT_AFTER_S and (is_of_no_version or file.startswith(WRITING)):
                store.delete(f"{folder}/{name}")
                left.append(f"{folder}/{name}")
    return left
