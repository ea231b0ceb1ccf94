"""Sends a run to its storage after each save, in a thread beside the training."""

import logging
import threading
from pathlib import Path
from typing import Self

from rlcar.errors import StorageError
from rlcar.storage.runs import Storage

# Time for the last push; after SIGTERM a drained node has 20 s for everything.
CLOSE_S = 12.0

logger = logging.getLogger(__name__)


class Mirror:
    """Pushes a run on request; a failure is logged, counted, and made good by the next push.

    Without an address it does nothing.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Raises StorageError for an invalid address."""
        self._folder = folder.resolve()  # its name is the run's name in the storage
        self._storage = Storage(url) if url else None
        self._wanted, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._push_on_request, daemon=True, name="mirror")
        self._pushes = self._failures = 0
        if self._storage is not None:
            self._thread.start()

    def push(self) -> None:
        """Asks for a push and returns at once."""
        self._wanted.set()

    def metrics(self) -> dict[str, float]:
        """Returns the numbers of pushes and of failures; empty without a storage."""
        if self._storage is None:
            return {}
        return {"storage/pushes": self._pushes, "storage/failures": self._failures}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._storage is None:
            return
        self._closing = True
        self._wanted.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            logger.warning("the last checkpoint is in %s and not yet in the storage", self._folder)

    def _push_on_request(self) -> None:
        assert self._storage is not None
        is_last = False
        while not is_last:
            self._wanted.wait()
            self._wanted.clear()
            is_last = (
                self._closing
            )  # read before the push, so that a request made during it is still served
            try:
                if self._folder.is_dir():
                    self._storage.push(self._folder)
                    self._pushes += 1
            except Exception as error:  # otherwise this thread, and with it the mirror, would end
                self._failures += 1
                logger.warning(
                    "%s; training continues, and the next save will try again",
                    error,
                    exc_info=not isinstance(error, StorageError),
                )
